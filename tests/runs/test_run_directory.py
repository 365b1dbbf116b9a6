"""Run directories: config.json, the lock, and what is in the way."""

import json
import os

import pytest

from rljax import Config
from rljax.runs import directory, records
from rljax.utils import atomic_io

RECORD = {"algorithm": "a2c", "config": {}, "run": {}}


@pytest.fixture
def run_dir(tmp_path):
    return directory.create(tmp_path / "run", RECORD, "metrics.csv")


def test_create_writes_config_and_empty_tables(tmp_path):
    made = directory.create(tmp_path / "a" / "b", RECORD, "metrics.csv")
    assert json.loads((made / "config.json").read_text()) == RECORD
    assert (made / "metrics.csv").read_bytes() == b""
    assert sorted(p.name for p in made.iterdir()) == [".lock", "config.json", "metrics.csv"]


def test_create_refuses_what_holds_a_run(run_dir):
    with pytest.raises(ValueError, match=r"'.*run' already holds a run"):
        directory.create(run_dir, {"other": 1})
    assert directory.read_record(run_dir) == RECORD


def test_create_refuses_what_holds_anything(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="is not empty"):
        directory.create(tmp_path, RECORD, "metrics.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_create_refuses_what_lies_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"'.*file/run' cannot be written \(Not a directory\)"):
        directory.create(tmp_path / "file" / "run", RECORD, "metrics.csv")


@pytest.mark.parametrize("name", ["config.json", "metrics.csv"])
@pytest.mark.parametrize("made", ["", "a", "a/b"])
def test_create_that_fails_leaves_nothing_behind(tmp_path, monkeypatch, made, name):
    """Of what was there before, all is left."""
    (tmp_path / made).mkdir(exist_ok=True, parents=True)
    before = sorted(tmp_path.rglob("*"))
    write = atomic_io.write

    def fail(path, data):
        if path.name == name:
            raise atomic_io.WriteError(f"{path} could not be written")
        write(path, data)

    monkeypatch.setattr(atomic_io, "write", fail)
    with pytest.raises(ValueError, match=f"cannot be written .*{name}"):
        directory.create(tmp_path / "a" / "b", RECORD, "metrics.csv")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_directory_is_locked(run_dir):
    refused = pytest.raises(ValueError, match=f"'.*run' is in use by process {os.getpid()} on ")
    with directory.lock(run_dir), refused, directory.lock(run_dir):
        pass
    with directory.lock(run_dir):
        pass


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("nowhere", None, r"'.*nowhere' is no directory: .*config.json \(No such file"),
        ("a_file", None, r"'.*a_file' is no directory: .*config.json \(Not a directory"),
        ("empty", None, r"'.*empty' is no run directory: .*config.json \(No such file"),
        ("run", "", "config.json' is damaged: Expecting value"),
        ("run", '{"config": {}, "run"', "config.json' is damaged: Expecting ':'"),
        ("run", b"\xff\xfe\xff", "config.json' is damaged: 'utf"),
        ("run", "[]", "config.json' is of no run: it has no 'config'"),
        ("run", "null", "config.json' is of no run: it has no 'config'"),
        ("run", '{"config": [], "run": {}}', "config.json' is of no run: it has no 'config'"),
        ("run", '{"config": {}}', "config.json' is of no run: it has no 'run'"),
    ],
)
def test_read_record_says_what_is_wrong(tmp_path, name, text, message):
    (tmp_path / "a_file").write_text("")
    (tmp_path / "empty").mkdir()
    if text is not None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_bytes(
            text if type(text) is bytes else text.encode()
        )
    with pytest.raises(ValueError, match=message) as caught:
        directory.read_record(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(
            env="probes:Truncating",
            env_kwargs={"mode": "hard", "wind": True},
            env_params={"max_steps_in_episode": 200, "gravity": 9.81},
            hidden_sizes=(8, 16),
            max_grad_norm=float("inf"),
            learning_rate=1e-3 / 3,
        ),
        Config(hidden_sizes=(), normalize_observations=True, learning_rate=0),
    ],
)
def test_a_config_survives_json(run_dir, config):
    atomic_io.write_json(
        run_dir / "config.json", {**RECORD, "config": records.config_record(config)}
    )
    assert records.read_config(directory.read_record(run_dir)) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rat": 1e-3}, "unknown setting 'learning_rat': did you mean learning_rate"),
        ({"gamma": 2.0}, "gamma = 2.0"),
        ({"optimizer": "adan"}, "unknown optimizer 'adan': did you mean adam"),
    ],
)
def test_read_config_refuses_other_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        records.read_config({"config": settings})


@pytest.mark.parametrize("settings", [{"num_envs": "4"}, {"env_params": "x"}, {"hidden_sizes": 8}])
def test_read_config_refuses_other_types(settings):
    with pytest.raises(TypeError, match=next(iter(settings))):
        records.read_config({"config": settings})
