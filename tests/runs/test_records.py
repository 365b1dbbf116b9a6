"""What is recorded of a run is looked at before it is used: a manifest that is sealed but says
something else than a run's must is damage, and the checkpoint before is used."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from saved_runs import CONFIG, make_run

import rljax
from rljax import sweep
from rljax.loggers import tables
from rljax.runs import checkpoints, directory
from rljax.runs.checkpoints import DamagedError
from rljax.utils import atomic_io

DEEP = "[" * 50_000 + "]" * 50_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    make_run(path)
    return path


@pytest.fixture
def run(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "run"))


def manifest_of(run, env_steps=320):
    return checkpoints.folder(run, env_steps) / "manifest.json"


def seal(path, facts):
    path.write_bytes(checkpoints._seal({n: x for n, x in facts.items() if n != "sha256"}))


MARK = {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}
SAYS_OTHERWISE = [
    ("files", None),
    ("files", []),
    ("files", {}),
    ("files", {"state.safetensors": {}}),
    ("files", {"state.safetensors": {"bytes": -1, "sha256": MARK["sha256"]}}),
    ("files", {"state.safetensors": {"bytes": 10**30, "sha256": MARK["sha256"]}}),
    ("files", {"state.safetensors": {"bytes": 0, "sha256": "x"}}),
    ("files", {"state.safetensors": MARK}),
    ("files", {"../../../elsewhere.safetensors": MARK}),
    ("files", {"/etc/passwd": MARK}),
    ("files", {"..": MARK}),
    ("files", {"a\0.safetensors": MARK}),
    ("files", {"x" * 300 + ".safetensors": MARK}),
    ("config", None),
    ("config", {"speed": 9}),
    ("config", {"env_kwargs": {"x": {"float": "fast"}}}),
    ("config", {"num_envs": 10**400}),
    ("seeds", None),
    ("seeds", []),
    ("seeds", [5]),
    ("seeds", [5, 6, 7]),
    ("seeds", [5, 5]),
    ("seeds", [5, -1]),
    ("seeds", [5, 2**32]),
    ("seeds", ["5", "6"]),
    ("env_steps", -320),
    ("env_steps", 160),
    ("env_steps", 320.0),
    ("updates", "20"),
    ("updates", None),
    ("tables", None),
    ("tables", {"metrics.csv": 5}),
    ("tables", {"../run/metrics.csv": MARK}),
    ("best", None),
    ("best", {"returns": [1.0, 2.0]}),
    ("best", {"env_steps": [320], "returns": [1.0]}),
    ("best", {"env_steps": [320, 320], "returns": [1.0, "high"]}),
    ("progress", [1]),
    ("progress", {"wall_seconds": "long"}),
    ("progress", {"evaluated": [160, "late"]}),
    ("progress", {"evaluated": [[160]]}),
]


@pytest.mark.parametrize(("fact", "value"), SAYS_OTHERWISE)
def test_a_manifest_that_says_otherwise_is_damage(run, fact, value):
    path = manifest_of(run)
    seal(path, {**json.loads(path.read_bytes()), fact: value})
    with pytest.warns(UserWarning, match=r"000320.* the one before is used") as caught:
        saved = rljax.load(run)
    assert saved.env_steps == [160, 160]
    assert "\n" not in str(caught[0].message)
    with pytest.raises(DamagedError):
        rljax.load(run, 320)


def test_a_file_elsewhere_is_not_read(run):
    """Not even one that is all that the manifest says of it."""
    path = manifest_of(run)
    elsewhere = run.parent / "elsewhere.safetensors"
    shutil.copy(path.with_name("state.safetensors"), elsewhere)
    facts = json.loads(path.read_bytes())
    for name in ("../../../elsewhere.safetensors", str(elsewhere)):
        listed = {**facts["files"], name: facts["files"]["state.safetensors"]}
        seal(path, {**facts, "files": listed})
        with pytest.raises(DamagedError, match="is no name of a file in its folder"):
            checkpoints.load(path.parent)


@pytest.mark.parametrize("fact", ["files", "config", "seeds", "env_steps", "updates", "progress"])
def test_a_manifest_that_lacks_a_fact_is_damage(run, fact):
    path = manifest_of(run)
    facts = json.loads(path.read_bytes())
    del facts[fact]
    seal(path, facts)
    with pytest.warns(UserWarning, match=r"000320.* the one before is used"):
        assert rljax.load(run, "best").env_steps == [160, 160]


@pytest.mark.parametrize("is_sealed", [False, True])
def test_a_deeply_nested_manifest_is_damage(run, is_sealed):
    path = manifest_of(run)
    begin = path.read_bytes().rpartition(b',\n "sha256": "')[0] + f',\n "x": {DEEP}'.encode()
    path.write_bytes(checkpoints._with_sum(begin) if is_sealed else DEEP.encode())
    with pytest.warns(UserWarning, match=r"manifest.json is damaged.* the one before is used"):
        assert rljax.load(run).env_steps == [160, 160]


@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir, lambda path: os.symlink(path, path)])
@pytest.mark.parametrize("name", ["manifest.json", "state.safetensors"])
def test_what_is_no_file_is_damage(run, name, put):
    """A pipe would be waited for."""
    path = manifest_of(run).with_name(name)
    path.unlink()
    put(path)
    with pytest.warns(UserWarning, match=rf"{name} cannot be read .* the one before is used"):
        assert rljax.load(run).env_steps == [160, 160]


ARRAYS = [
    lambda arrays: {n: x[:1] if x.ndim else x for n, x in arrays.items()},
    lambda arrays: {**arrays, "learner/updates": np.zeros(3, np.int32)},
    lambda arrays: {**arrays, "learner/updates": np.zeros(2, np.float32)},
    lambda arrays: {n: x for n, x in arrays.items() if n != "learner/updates"},
    lambda arrays: {n: x for n, x in arrays.items() if not n.startswith("learner/params/")},
    lambda arrays: {**arrays, "learner/params": np.zeros(2)},
    lambda arrays: {**arrays, "x|clip": np.zeros(2)},
    lambda arrays: {**arrays, "x/" * 5000: np.zeros(2)},
]


@pytest.mark.parametrize("change", ARRAYS)
@pytest.mark.parametrize("name", ["state", "best"])
def test_arrays_of_another_form_are_damage(run, name, change):
    """As many seeds as the manifest has, and a learner's."""
    path = manifest_of(run)
    facts, trees = checkpoints.load(path.parent)
    facts = {n: x for n, x in facts.items() if n not in ("format", "files", "sha256")}
    checkpoints.write(path.parent, {**trees, name: change(trees[name])}, facts)
    with pytest.warns(UserWarning, match=r"000320.* the one before is used"):
        assert rljax.load(run).env_steps == [160, 160]


def test_a_tree_that_is_not_listed_is_damage(run):
    path = manifest_of(run)
    facts = json.loads(path.read_bytes())
    del facts["files"]["best.safetensors"]
    seal(path, facts)
    with pytest.warns(UserWarning, match=r"it holds state, not best, state; the one before"):
        assert rljax.load(run).env_steps == [160, 160]


def test_a_manifest_as_it_was_written_before_is_whole(run):
    """With Infinity and NaN, which are no JSON; its sum is of the text that it is."""
    path = manifest_of(run)
    facts = {n: x for n, x in json.loads(path.read_bytes()).items() if n != "sha256"}
    facts["config"] = {**facts["config"], "max_grad_norm": float("inf")}
    facts["best"]["returns"] = [float("nan"), 1.0]
    text = json.dumps(facts, indent=1).encode() + b"\n"
    facts["sha256"] = hashlib.sha256(text).hexdigest()
    path.write_bytes(json.dumps(facts, indent=1).encode() + b"\n")
    assert b"Infinity" in path.read_bytes()
    assert rljax.load(run, 320).config == CONFIG


def test_what_is_written_is_valid_json(run):
    for path in run.rglob("*.json"):
        json.loads(path.read_bytes(), parse_constant=pytest.fail)


def test_a_name_that_leads_elsewhere_is_not_saved(tmp_path):
    for name in ("../x", "a/b", "", ".x", "a\0"):
        with pytest.raises(ValueError, match="a tree's name becomes a file's"):
            checkpoints.save(tmp_path / "16", {name: {"x": np.zeros(2)}}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resumed": 3}, "its 'resumed' is no list of objects"),
        ({"resumed": [3]}, "its 'resumed' is no list of objects"),
        ({"versions": 3}, "its 'versions' is no object"),
        ({"resumed": [{"versions": 3}]}, "its 'versions' is no object"),
    ],
)
def test_a_record_of_another_form_is_told(run, change, message):
    atomic_io.write_json(run / "config.json", {**directory.read_record(run), **change})
    with pytest.raises(ValueError, match=message):
        directory.read_record(run)


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 300 + "1" + "}" * 300, "1" * 5000, "\xff"])
def test_json_that_cannot_be_read_is_told_in_one_line(run, text):
    (run / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config.json' is damaged: ") as caught:
        directory.read_record(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "metrics.csv"])
def test_a_pipe_is_not_waited_for(run, name):
    (run / name).unlink()
    os.mkfifo(run / name)
    read = directory.read_record if name == "config.json" else tables.read_metrics
    with pytest.raises(ValueError, match="Not a regular file"):
        read(run)
    with pytest.raises(atomic_io.WriteError, match="Not a regular file"):
        atomic_io.append(run / name, "x")


def test_a_pipe_for_a_lock_is_refused(run):
    (run / ".lock").unlink(missing_ok=True)
    os.mkfifo(run / ".lock")
    with pytest.raises(ValueError, match="Not a regular file"), directory.lock(run):
        pass


def test_a_very_large_file_is_not_read(run):
    readers = {"config.json": directory.read_record, "metrics.csv": tables.read_metrics}
    for name, read in readers.items():
        os.truncate(run / name, 3 * 2**30)
        with pytest.raises(ValueError, match="File too large"):
            read(run)


def test_a_table_that_grows_while_it_is_read_has_the_rows_of_before(run, monkeypatch):
    rows, opened = len(tables.read_metrics(run)), atomic_io.opened

    def opened_and_grown(path):
        file = opened(path)
        size = os.fstat(file.fileno()).st_size

        class Growing:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def fileno(self):
                return file.fileno()

            def read(self, number=-1):
                with open(path, "ab") as other:
                    other.write(b"5,480,30,1.0,")
                assert number == size
                return file.read(number)

        return Growing()

    monkeypatch.setattr(atomic_io, "opened", opened_and_grown)
    assert len(tables.read_metrics(run)) == rows
    assert len(tables.read_metrics(run)) == rows  # half a line is left out


@pytest.mark.parametrize(
    ("old", "new"),
    [("\n5,160,", "\n5.5,160,"), ("\n5,160,", "\n1e300,160,"), ("\n5,160,", "\n-5,160,")],
)
def test_a_count_that_is_none_is_damage(run, old, new):
    path = run / "metrics.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=r"damaged \(seed must be whole numbers\)"):
        tables.read_metrics(run)


def test_a_row_of_another_length_is_damage(run):
    path = run / "metrics.csv"
    for change in (lambda line: line + ",1", lambda line: line.rpartition(",")[0]):
        header, first, *rest = path.read_text().split("\n")
        path.write_text("\n".join([header, change(first), *rest]))
        with pytest.raises(ValueError, match="a row is longer or shorter than the header"):
            tables.read_metrics(run)
        path.write_text("\n".join([header, first, *rest]))


ENTRY = {"agents": [0], "bytes": 6, "sha256": MARK["sha256"], "train_seconds": 1, "wall_seconds": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"agents": 5},
        {"agents": [[]]},
        {"agents": [0, 0]},
        {"bytes": -1},
        {"bytes": "6"},
        {"train_seconds": None},
        {"wall_seconds": float("nan")},
        {"wall_seconds": 10**400},
    ],
)
def test_a_journal_of_another_form_is_refused(tmp_path, change):
    (tmp_path / "results.csv").write_text("agent\n")
    entry = {**ENTRY, "sha256": hashlib.sha256(b"agent\n").hexdigest()}
    (tmp_path / "finished.jsonl").write_text(json.dumps(entry) + "\n")
    assert sweep.Journal(tmp_path).trials == [0]
    for text in (json.dumps({**entry, **change}), json.dumps(list(entry)), DEEP):
        (tmp_path / "finished.jsonl").write_text(text + "\n")
        with pytest.raises(ValueError, match=r"finished.jsonl is damaged"):
            sweep.Journal(tmp_path)
        assert (tmp_path / "results.csv").read_text() == "agent\n"
