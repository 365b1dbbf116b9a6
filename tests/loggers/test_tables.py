"""The tables of a run, which grow by whole rows: metrics.csv and evaluations.csv."""

import json
import os

import numpy as np
import pytest

from rljax.loggers import tables
from rljax.runs import directory
from rljax.runs.checkpoints import DamagedError
from rljax.types import Metrics
from rljax.utils import atomic_io

ROW = {name: i for i, name in enumerate(tables.METRICS)}
HEADER = ",".join(tables.METRICS) + "\n"
LINE = ",".join(map(str, ROW.values())) + "\n"


@pytest.fixture
def run_dir(tmp_path):
    record = {"algorithm": "a2c", "config": {}, "run": {}}
    return directory.create(tmp_path / "run", record, "metrics.csv")


def test_metrics_keep_every_digit(run_dir):
    values = np.random.default_rng(0).normal(size=100).astype(np.float32)
    values[:3] = np.float32(0.1) + np.float32(1e-8), np.finfo(np.float32).tiny, 2**-149
    tables.append_metrics(run_dir, [{**ROW, "policy_loss": str(value)} for value in values])
    table = tables.read_metrics(run_dir)
    np.testing.assert_array_equal(np.float32(table["policy_loss"]), values)


def test_metrics_of_several_rows(run_dir):
    tables.append_metrics(run_dir, [{**ROW, "episodic_return": "", "grad_norm": "inf"}])
    tables.append_metrics(run_dir, [ROW, {**ROW, "seed": 7}])
    table = tables.read_metrics(run_dir)
    assert tuple(table.columns) == tables.METRICS
    assert table["seed"].tolist() == [0, 0, 7]
    np.testing.assert_array_equal(table["episodic_return"], [np.nan, 5, 5])
    np.testing.assert_array_equal(table["grad_norm"], [np.inf, *[ROW["grad_norm"]] * 2])
    for name in ("seed", "env_steps", "updates", "episodes"):
        assert table[name].dtype == np.int64


@pytest.mark.parametrize("text", ["", HEADER, HEADER[:-9]])
def test_fresh_metrics_have_columns_and_no_rows(run_dir, text):
    (run_dir / "metrics.csv").write_text(text)
    table = tables.read_metrics(run_dir)
    assert tuple(table.columns) == tables.METRICS
    assert len(table) == 0


@pytest.mark.parametrize("end", [1, len(LINE) // 2, len(LINE) - 1])
def test_half_a_last_line_is_left_out(run_dir, end):
    (run_dir / "metrics.csv").write_text(HEADER + LINE + LINE[:end])
    assert tables.read_metrics(run_dir)["seed"].tolist() == [0]


def test_the_first_rows_give_the_header(run_dir):
    """What a loss or an algorithm adds has columns, in an order of their own."""
    more = {**ROW, "kl": 0.25, "alpha": 2.0}
    tables.append_metrics(run_dir, [more])
    assert (run_dir / "metrics.csv").read_text().startswith(f"{HEADER.strip()},kl,alpha\n")
    tables.append_metrics(run_dir, [{**ROW, "alpha": 1, "kl": 0.5, "beta": 3}])
    table = tables.read_metrics(run_dir)
    assert tuple(table.columns) == (*tables.METRICS, "kl", "alpha")
    assert table["kl"].tolist() == [0.25, 0.5]


def test_rows_follow_the_header_that_is_there(run_dir):
    """Of a run that an earlier version began, without the column `loss`."""
    names = [name for name in tables.METRICS if name != "loss"]
    (run_dir / "metrics.csv").write_text(",".join(names) + "\n")
    tables.append_metrics(run_dir, [ROW])
    table = tables.read_metrics(run_dir)
    assert list(table.columns) == names
    assert table["policy_loss"].tolist() == [ROW["policy_loss"]]


def metrics_of(losses, **extra):
    """`types.Metrics` [2] after 3 updates, of which no episode of the second seed ended."""
    ones = np.ones(2, np.float32)
    values = dict.fromkeys(Metrics._fields, ones)
    values |= dict(updates=np.int32([3, 3]), episodes=np.float32([2, 0]), losses=losses)
    return Metrics(**{**values, "extra": extra})


def test_rows_of_metrics(run_dir):
    """The usual losses first, then others by name; what an algorithm adds is last."""
    losses = {name: np.float32([1, 2]) for name in ("b", "entropy", "a", "loss")}
    metrics = metrics_of(losses, staleness_max=np.int64([4, 5]), staleness_mean=np.float32([1, 2]))
    times = dict(wall_seconds=1.23456, steps_per_second=99.9)
    rows = tables.metrics_rows(metrics, [1], [5, 6], 16, **times)
    assert [*rows[0]] == [
        *("seed env_steps updates wall_seconds episodes episodic_return episodic_length".split()),
        *("loss entropy a b grad_norm learning_rate steps_per_second".split()),
        *("staleness_mean", "staleness_max"),
    ]
    tables.append_metrics(run_dir, rows)
    line = (run_dir / "metrics.csv").read_text().splitlines()[1]
    assert line == "6,48,3,1.235,0,,,2.0,2.0,2.0,2.0,1.0,1.0,100,2.0,5"
    table = tables.read_metrics(run_dir)
    assert (table["seed"].tolist(), table["env_steps"].tolist()) == ([6], [48])
    assert np.isnan(table["episodic_return"]).all()


def test_metrics_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"metrics.csv' cannot be read \(No such file"):
        tables.read_metrics(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n",
        LINE + LINE,
        HEADER + LINE.replace("5", "x"),
        HEADER + LINE.replace("5", "\0"),
        HEADER + LINE.replace("5", "\xff"),
        HEADER + LINE.replace("0,1,", ",1,", 1),
        HEADER + "0,1,2\n" + LINE,
        HEADER + LINE.replace("0,", '"0,', 1) + LINE,
        HEADER + LINE.replace("0,", '"0,', 1) + 5_000 * LINE,
    ],
    ids=[
        "other columns",
        "no header",
        "a letter",
        "a null byte",
        "no UTF-8",
        "no seed",
        "a short row",
        "a quote",
        "a quote in a long table",
    ],
)
def test_damaged_metrics_are_an_error_of_one_line(run_dir, text):
    (run_dir / "metrics.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"metrics\.csv' is damaged") as caught:
        tables.read_metrics(run_dir)
    assert "\n" not in str(caught.value)


def test_evaluations_have_a_header_and_a_row_per_seed(run_dir):
    returns = np.array([[0.1, 0.2], [3, 4]], np.float32)
    tables.append_evaluations(run_dir, rows_of(160, returns))
    tables.append_evaluations(run_dir, rows_of(320, returns + 1))
    header, *rows = (run_dir / "evaluations.csv").read_text().splitlines()
    assert header == ",".join(tables.EVALUATIONS)
    assert [row.split(",")[:4] for row in rows] == [
        ["5", "160", "10", "2"],
        ["6", "160", "10", "2"],
        ["5", "320", "20", "2"],
        ["6", "320", "20", "2"],
    ]
    means = [np.float32(row.split(",")[4]) for row in rows]
    np.testing.assert_array_equal(
        means, np.concatenate([r.mean(1) for r in (returns, returns + 1)])
    )


def test_evaluations_after_a_full_disk_have_a_header(run_dir, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(atomic_io, "open", lambda *_, **__: full(), raising=False)
        with pytest.raises(atomic_io.WriteError):
            tables.append_evaluations(run_dir, rows_of(160, np.ones((1, 2))))
    tables.append_evaluations(run_dir, rows_of(320, np.ones((1, 2))))
    assert (run_dir / "evaluations.csv").read_text().startswith(",".join(tables.EVALUATIONS))


def test_tables_cut_to_nothing_begin_anew(run_dir):
    """As of a run that starts again at its beginning."""
    fill(run_dir)
    whole = table_bytes(run_dir)
    tables.cut(run_dir, {"metrics.csv": {"bytes": 0}})
    assert table_bytes(run_dir) == {"metrics.csv": ""}
    fill(run_dir)
    assert table_bytes(run_dir) == whole


def rows_of(env_steps, returns):
    """An evaluation of seeds 5, 6, ..., returns [S, N]."""
    return [(5 + i, env_steps, env_steps // 16, row) for i, row in enumerate(returns)]


# Marks: where the tables were at a checkpoint


def fill(run_dir, evaluated=True):
    tables.append_metrics(run_dir, [ROW, ROW])
    if evaluated:
        tables.append_evaluations(run_dir, rows_of(160, np.ones((2, 3))))


def table_bytes(run_dir):
    return {p.name: p.read_text() for p in run_dir.glob("*.csv")}


@pytest.mark.parametrize("half", ["", "7,32"])
def test_cut_takes_the_tables_back_to_their_marks(run_dir, half):
    fill(run_dir)
    marked, marks = table_bytes(run_dir), json.loads(json.dumps(tables.mark(run_dir)))
    fill(run_dir)
    for name in marks:
        atomic_io.append(run_dir / name, half)
    tables.check(run_dir, marks)
    assert table_bytes(run_dir) != marked
    tables.cut(run_dir, marks)
    assert table_bytes(run_dir) == marked
    tables.check(run_dir, marks)


def test_cut_of_tables_that_have_not_grown_changes_nothing(run_dir):
    fill(run_dir)
    marked = table_bytes(run_dir)
    tables.cut(run_dir, tables.mark(run_dir))
    assert table_bytes(run_dir) == marked


def test_cut_removes_evaluations_that_began_later(run_dir):
    fill(run_dir, evaluated=False)
    marked, marks = table_bytes(run_dir), tables.mark(run_dir)
    fill(run_dir)
    tables.check(run_dir, marks)
    tables.cut(run_dir, marks)
    assert table_bytes(run_dir) == marked
    tables.cut(run_dir, marks)  # there are none now
    assert table_bytes(run_dir) == marked


def change_a_digit(path):
    path.write_text(path.read_text().replace("1", "2", 1))


def drop_the_last_byte(path):
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("name", tables.TABLES)
@pytest.mark.parametrize(
    "harm", [change_a_digit, drop_the_last_byte, os.unlink], ids=["changed", "shortened", "removed"]
)
@pytest.mark.parametrize("grown", [False, True])
def test_a_table_that_is_not_as_marked_is_damaged(run_dir, name, harm, grown):
    fill(run_dir)
    marks = tables.mark(run_dir)
    if grown and harm is change_a_digit:
        fill(run_dir)
    harm(run_dir / name)
    with pytest.raises(DamagedError, match=f"{run_dir / name} was changed or cut"):
        tables.check(run_dir, marks)
