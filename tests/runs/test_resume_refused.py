"""What cannot be resumed is refused in a line, and left as it is."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from small_runs import contents, train_half

import rljax
from rljax.runs import checkpoints, directory
from rljax.utils import atomic_io


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    return train_half(tmp_path_factory.mktemp("runs") / "stopped")


@pytest.fixture
def stopped(stopped_once, tmp_path):
    return Path(shutil.copytree(stopped_once, tmp_path / "stopped"))


def refuse(run_dir, message, kind=ValueError, **changes):
    before = contents(run_dir.parent)
    with pytest.raises(kind) as caught:
        rljax.resume(run_dir, **changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents(run_dir.parent) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(learning_rate=0.02), "the run has learning_rate = 0.01, not 0.02"),
        (dict(seed=6), "the run has seed = 5, not 6"),
        (dict(num_seeds=3, gamma=0.5), "gamma = 0.99, not 0.5, num_seeds = 2, not 3"),
        (dict(env="CartPole-v1"), "env = 'probes:RewardByAction', not 'CartPole-v1'"),
        (dict(eval_mode="sampled"), "eval_mode = 'greedy', not 'sampled'"),
        (dict(log_interval=3), "the run has log_interval = 2, not 3"),
        (dict(core="lstm"), "the run has core = 'none', not 'lstm'"),
        (dict(loss="probes:odd"), "the run has loss = 'actor_critic', not 'probes:odd'"),
        (dict(total_timesteps=1600), "total_timesteps = 1600: may only be raised on resume, from"),
        (dict(keep_checkpoints=0), "keep_checkpoints = 0: must be at least 1"),
        (dict(device="tpu"), "unknown device 'tpu': did you mean"),
    ],
)
def test_what_may_not_change_is_refused_by_name(stopped, changes, message):
    refuse(stopped, message, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(total_timestep=6400), "unknown setting 'total_timestep': did you mean total_t"),
        (dict(num_workers=2), "unknown setting 'num_workers': did you mean"),
        (dict(total_timesteps=6400.0), "total_timesteps = 6400.0: must be a whole number"),
    ],
)
def test_what_is_no_setting_is_refused(stopped, changes, message):
    refuse(stopped, message, TypeError, **changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"gamma": 0.5}}, "gamma = 0.99, not 0.5"),
        ({"config": {"total_timesteps": 1600}}, "total_timesteps = 1600: the checkpoint is of"),
        ({"run": {"num_seeds": 3}}, "seeds = [5, 6], not [5, 6, 7]"),
        ({"config": {"hidden_sizes": [9]}}, "hidden_sizes = (8,), not (9,)"),
        ({"config": {"core": "gru", "core_size": 9}}, "core = 'none', not 'gru', core_size = 64, "),
        ({"config": {"speed": 9}}, "unknown setting 'speed'"),
        ({"algorithm": "a3c"}, "num_envs = 4: A3C has envs_per_worker instead"),
        ({"algorithm": "a4c"}, "is a run of a4c, not of a2c or a3c"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(stopped, change, message):
    """As if its config.json or its checkpoints had come from elsewhere."""
    record = directory.read_record(stopped)
    for part, values in change.items():
        record[part] = {**record[part], **values} if isinstance(values, dict) else values
    atomic_io.write_json(stopped / "config.json", record)
    refuse(stopped, message)


def test_a_run_whose_network_would_be_another_now_is_refused(stopped):
    record = json.loads((stopped / "config.json").read_bytes())
    record["network"]["observation_scale"] = 1 / 255
    (stopped / "config.json").write_text(json.dumps(record))
    message = "was trained with the network {'torso': 'MLP'"
    refuse(stopped, message)
    with pytest.raises(ValueError, match="was trained with the network"):
        rljax.load(stopped).policy()


def test_a_checkpoint_of_another_network_is_refused(stopped, monkeypatch):
    """A user's own module keeps its name and changes its insides."""
    from rljax.networks import torsos

    mlp = torsos.MLP

    def MLP(hidden_sizes, **rest):  # noqa: N802  the name is recorded
        return mlp((7,), **rest)

    monkeypatch.setattr(torsos, "MLP", MLP)
    jax.clear_caches()
    refuse(stopped, "is float32[2, 8, 2], not float32[2, 7, 2]")
    refuse(stopped, "another network, loss or environment: the saved learner/params/")
    jax.clear_caches()


def test_a_checkpoint_of_another_format_is_refused(stopped, monkeypatch):
    monkeypatch.setattr(checkpoints, "FORMAT", 2)
    refuse(stopped, "format 1, not 2: of another version")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "is no directory"),
        (lambda path: path.mkdir(), "is no run directory"),
        (lambda path: path.write_text(""), "is no directory"),
        (lambda path: (path.mkdir(), (path / "config.json").write_text("{")), "is damaged"),
        (lambda path: (path.mkdir(), (path / "config.json").write_text("[]")), "has no 'config'"),
    ],
    ids=["absent", "empty", "a file", "half a config", "another config"],
)
def test_what_is_no_run_is_refused(tmp_path, make, message):
    make(tmp_path / "run")
    refuse(tmp_path / "run", message)


def test_metrics_without_checkpoints_are_no_silent_restart(stopped):
    shutil.rmtree(stopped / "checkpoints")
    refuse(stopped, "no whole checkpoint")


def test_a_checkpoint_of_no_run_is_damage(stopped):
    """The one before is used; where there is none, it is refused."""
    *_, before, newest = checkpoints.existing(stopped)
    own = {"state": {"x": np.zeros(3)}}
    checkpoints.save(checkpoints.folder(stopped, newest), own, {"why": "my own"})
    message = rf"{newest:012d} is of no run: its manifest has no 'config'"
    with pytest.warns(UserWarning, match=message):
        assert rljax.load(stopped).env_steps == [before, before]
    for env_steps in checkpoints.existing(stopped):
        checkpoints.save(checkpoints.folder(stopped, env_steps), own, {"why": "my own"})
    refuse(stopped, "no whole checkpoint in")
    with pytest.raises(ValueError, match="no whole checkpoint in"):
        rljax.load(stopped)


@pytest.mark.parametrize(
    "change",
    [{"evaluated": [800]}, {"wall_seconds": None}, {"wall_seconds": [1.0]}, {"speed": 1.0}],
    ids=lambda change: next(iter(change)),
)
def test_progress_of_another_form_is_damage(stopped, change):
    path = checkpoints.folder(stopped, checkpoints.existing(stopped)[-1]) / "manifest.json"
    facts = json.loads(path.read_bytes())
    facts["progress"] |= change
    path.write_bytes(checkpoints._seal({n: x for n, x in facts.items() if n != "sha256"}))
    with pytest.warns(UserWarning, match=f"{path.parent.name} is of no run: .*progress.* is of an"):
        assert rljax.resume(stopped, quiet=True).status == "completed"


def test_progress_without_evaluations_is_of_none(stopped):
    """As of a run that was not evaluated in training."""
    path = checkpoints.folder(stopped, checkpoints.existing(stopped)[-1]) / "manifest.json"
    facts = json.loads(path.read_bytes())
    del facts["progress"]["evaluated"]
    path.write_bytes(checkpoints._seal({n: x for n, x in facts.items() if n != "sha256"}))
    assert rljax.resume(stopped, quiet=True).status == "completed"
