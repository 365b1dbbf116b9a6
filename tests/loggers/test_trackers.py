"""Loggers: what they are given, and that none of them stops or slows a run."""

import threading
import warnings

import numpy as np
import pytest
from small_runs import train, train_half

import rljax
from rljax.cli import training as training_cli
from rljax.loggers import tables, trackers
from rljax.loggers.trackers import feed, tags
from rljax.runs.run import read_summary
from rljax.utils import imports

pytestmark = pytest.mark.usefixtures("undrawn")

SUMMARY = dict(seeds=[0], env_steps=0)
SHORT = dict(total_timesteps=640, eval_every=320, eval_episodes=2)


class Notes:
    """Keeps what it is given."""

    def __init__(self):
        self.record, self.rows, self.summary = None, [], None

    def begin(self, record):
        assert self.record is None
        self.record = record

    def write(self, row):
        self.rows.append(row)

    def end(self, summary):
        self.summary = summary


class Failing(Notes):
    def write(self, row):
        raise ConnectionError("no network\nat all")


def every_row(run_dir):
    return tables.logged(run_dir) + tables.final_rows(read_summary(run_dir))


def assert_same(rows, wanted):
    assert len(rows) == len(wanted)
    order = lambda row: (row["env_steps"], row["seed"], [*row])  # noqa: E731
    for row, other in zip(sorted(rows, key=order), sorted(wanted, key=order)):
        assert list(row) == list(other)
        assert [*map(str, map(float, row.values()))] == [*map(str, map(float, other.values()))]


def test_a_logger_is_given_every_row_of_the_tables(tmp_path):
    notes = Notes()
    run = train(tmp_path / "run", **SHORT, loggers=[notes])
    assert notes.record["name"] == "run"
    assert notes.record["seeds"] == [5, 6]
    assert notes.record["config"]["num_envs"] == 4
    seconds = {**run.summary["logger_seconds"]}
    assert 0 < seconds.pop("training_thread") < 1
    assert {name: set(own) for name, own in seconds.items()} == {"Notes": {"begin", "end"}}
    assert notes.summary == {n: x for n, x in run.summary.items() if n != "logger_seconds"}
    assert read_summary(tmp_path / "run") == run.summary
    assert_same(notes.rows, every_row(tmp_path / "run"))
    assert sum("eval/episodic_return" in row for row in notes.rows) == 4
    assert [row["eval/final_return"] for row in notes.rows[-2:]] == run.summary["final_return"][
        "per_seed"
    ]
    assert all(type(x) in (int, float) for row in notes.rows for x in row.values())


def test_a_run_without_a_directory_is_logged_as_well():
    notes = Notes()
    run = train(**SHORT | {"eval_every": 0}, loggers=[notes])
    assert notes.record["run_dir"] is None
    assert [row["env_steps"] for row in notes.rows[:-2]] == sorted(run.metrics.env_steps)


def test_a_resumed_run_is_given_whole(tmp_path):
    run_dir, notes = train_half(tmp_path / "run"), Notes()
    rljax.resume(run_dir, loggers=[notes], quiet=True)
    assert_same(notes.rows, every_row(run_dir))


def test_a_logger_that_fails_is_told_of_once_and_stops_nothing(tmp_path):
    notes = Notes()
    with pytest.warns(UserWarning, match="logger") as told:
        run = train(tmp_path / "run", **SHORT, loggers=[Failing(), notes])
    (line,) = [str(one.message) for one in told if "logger" in str(one.message)]
    assert line.startswith(
        "logger Failing: write failed: ConnectionError: no network at all; write"
    )
    assert "export.py" in line
    assert run.status == "completed"
    assert_same(notes.rows, every_row(tmp_path / "run"))


def test_a_logger_that_hangs_is_left_behind(monkeypatch):
    monkeypatch.setattr(feed, "PATIENCE", 0.2)
    forever = threading.Event()

    class Hanging(Notes):
        def begin(self, record):
            forever.wait()

    with pytest.warns(UserWarning, match=r"logger Hanging: has not ended after 0 s"):
        run = train(**SHORT | {"eval_every": 0}, loggers=[Hanging()])
    forever.set()
    assert run.status == "completed"


def test_a_logger_that_is_too_slow_is_left_behind(monkeypatch):
    monkeypatch.setattr(feed, "WAITING", 3)
    monkeypatch.setattr(feed, "PATIENCE", 0.2)
    begun, forever = threading.Event(), threading.Event()

    class Slow(Notes):
        def write(self, row):
            begun.set()
            forever.wait()

    slow = feed.Feed({"slow": Slow()})
    slow.begin({})
    slow.write([{"seed": 0}])
    begun.wait()
    for _ in range(3):
        slow.write([{"seed": 0}])
    with pytest.warns(UserWarning, match="logger slow: is too slow: more than 3 log points wait"):
        slow.write([{"seed": 0}])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        slow.end(SUMMARY)
    forever.set()


def test_tags_are_those_of_the_field():
    row = dict(seed=1, env_steps=80, updates=5, episodes=0, episodic_return=np.nan, loss=np.nan)
    row |= {"steps_per_second": 9, "own_loss": 2.0, "info/is_success": 1.0, "staleness_max": 3.0}
    found = tags.of(row | {"loss": 0.5})
    assert found == {
        "charts/updates": 5,
        "charts/episodes": 0,
        "losses/loss": 0.5,
        "charts/SPS": 9,
        "losses/own_loss": 2.0,
        "info/is_success": 1.0,
        "charts/staleness_max": 3.0,
    }
    known = dict(seed=1, env_steps=80, episodes=2, episodic_return=4.0, loss=np.nan)
    assert np.isnan(tags.of(known)["losses/loss"])  # of a run that diverged


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("tensorbord", "unknown tracker, log = 'tensorbord': did you mean tensorboard?"),
        ("test_trackers:Nothing", "'test_trackers:Nothing': test_trackers has no attribute"),
        (3, "log = 3: has no method 'begin'"),
    ],
)
def test_bad_loggers_are_refused(given, message):
    with pytest.raises((ValueError, TypeError)) as error:
        trackers.make([given])
    assert str(error.value).startswith(message)


def test_the_same_logger_twice_is_refused():
    with pytest.raises(ValueError, match="log: 'Notes' is given twice"):
        trackers.make([Notes(), Notes()])


def test_a_logger_is_found_by_its_path(tmp_path):
    (found,) = trackers.make(["test_trackers:Notes"]).values()
    assert type(found).__name__ == "Notes"


def test_a_missing_package_is_one_line_with_its_install_command(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(imports.util, "find_spec", lambda name: None)
    flags = ["--env", "probes:RewardByAction", "--log", "wandb", "--run-dir", str(tmp_path / "run")]
    assert training_cli.main("a2c", "Trains.", flags) == 2
    wanted = "error: log = 'wandb': the package wandb is missing: pip install -e \".[wandb]\"\n"
    assert capfd.readouterr().err == wanted
    assert not (tmp_path / "run").exists()
