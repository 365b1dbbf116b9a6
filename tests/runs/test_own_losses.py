"""Losses of a user's own: as functions, and as 'package.module:attribute'."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import own_losses
import pytest
from small_runs import CONFIG, OPTIONS, SETTINGS, TIMES, results, stop_at_update, train

import rljax
from rljax import a2c, a3c, sweep
from rljax.config import WorkerConfig
from rljax.loggers import tables
from rljax.runs import directory
from rljax.sweep import results as results_of_sweep
from rljax.utils import seeds

NAME = "own_losses:with_kurtosis"
SHORT = dict(total_timesteps=640, eval_every=320, eval_episodes=2)
COLUMNS = [
    *tables.METRICS[: tables.METRICS.index("explained_variance")],
    *("largest_value", "number", "grad_norm", "learning_rate", "steps_per_second"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "run", **SHORT, loss=NAME)


def test_its_metrics_are_columns(whole):
    """As the usual ones, of each row the mean; what it leaves out is not there."""
    assert list(whole.metrics) == COLUMNS
    assert list(rljax.load(whole.run_dir).metrics) == COLUMNS
    assert (whole.metrics["number"] == 3).all()
    assert whole.metrics["largest_value"].notna().all()


def test_it_trains_as_the_same_loss_by_another_name(whole):
    usual = train(**SHORT)
    for name in ("policy_loss", "entropy", "grad_norm", "episodic_return"):
        np.testing.assert_allclose(whole.metrics[name], usual.metrics[name], rtol=1e-4, atol=1e-6)


def test_a_function_is_the_same_as_its_name(whole, tmp_path):
    """It is recorded by the name under which it can be imported."""
    run = train(tmp_path / "run", **SHORT, loss=own_losses.with_kurtosis)
    assert run.metrics.drop(columns=TIMES).equals(whole.metrics.drop(columns=TIMES))
    assert run.config.loss is own_losses.with_kurtosis
    assert directory.read_record(run.run_dir)["config"]["loss"] == NAME
    assert rljax.load(run.run_dir).config.loss == NAME
    assert rljax.resume(run.run_dir, quiet=True).status == "completed"


def test_a_function_of_this_program_alone_is_trained():
    def mine(distribution, values, actions, advantages, targets, config):
        loss, metrics = own_losses.bare(distribution, values, actions, advantages, targets, config)
        return loss, {**metrics, "gamma": config.gamma}

    run = train(**SHORT, loss=mine)
    assert list(run.metrics)[7:10] == ["loss", "gamma", "grad_norm"]
    np.testing.assert_allclose(run.metrics["gamma"], 0.99, rtol=1e-6)


def test_what_has_no_name_is_given_again_on_resume(tmp_path):
    """As in a notebook; another function is refused."""

    def mine(*args):
        return own_losses.bare(*args)

    def other(*args):
        return own_losses.bare(*args)

    train(tmp_path / "run", **SHORT, loss=mine, on_log=lambda row: "stop")
    with pytest.raises(ValueError, match=r"the run has loss = '<function .*mine>', not .*other"):
        rljax.resume(tmp_path / "run", loss=other, quiet=True)
    with pytest.raises(ValueError, match=r"loss .* has no path .*: give the object again"):
        rljax.resume(tmp_path / "run", quiet=True)
    run = rljax.resume(tmp_path / "run", loss=mine, quiet=True)
    assert run.status == "completed"
    usual = train(**SHORT, loss="own_losses:bare").metrics
    assert run.metrics.drop(columns=TIMES).equals(usual.drop(columns=TIMES))


@pytest.mark.slow
def test_losses_are_swept(tmp_path):
    """Each has its metrics as columns; those of the other stay empty."""
    told = dict(run_dir=tmp_path / "sweep", quiet=True, eval_episodes=1)
    config = dataclasses.replace(CONFIG, total_timesteps=160)
    sweep.run(config, {"loss": ("own_losses:bare", NAME)}, [0], **told)
    table = results_of_sweep.read(tmp_path / "sweep")
    number = table.groupby("loss")["number"]
    assert number.count().to_dict() == {"own_losses:bare": 0, NAME: 10}
    points = directory.read_record(tmp_path / "sweep")["points"]
    assert points == [{"loss": "own_losses:bare"}, {"loss": NAME}]


def test_a_metric_with_the_name_of_an_axis_is_refused():
    def mine(*args):
        return own_losses.bare(*args)[0], {"gamma": 0.0}

    config = dataclasses.replace(CONFIG, loss=mine)
    with pytest.raises(ValueError, match="the loss's metric 'gamma' must have another name than"):
        sweep.run(config, {"gamma": (0.9, 0.99)}, [0])


def test_chunks_have_its_metrics():
    config = dataclasses.replace(CONFIG, total_timesteps=640, loss=NAME)
    names = {"loss", "policy_loss", "value_loss", "entropy", "largest_value", "number"}
    for states, metrics in a2c.chunks(config, seeds.keys([5, 6])):
        assert set(metrics.losses) == set(states.row.losses) == names
        assert metrics.losses["number"].shape == (2,)
    _, metrics = jax.jit(a2c.train)(config, jax.random.key(5))
    assert metrics.losses["largest_value"].shape == (40,)


def test_a_run_with_it_is_resumed_to_the_same_bits(whole, tmp_path):
    """From within a row, whose sums are in the checkpoint."""
    told = dict(SHORT, log_interval=2, loss=NAME)
    other = train(tmp_path / "whole", **told)
    with pytest.MonkeyPatch.context() as patch:
        stop_at_update(patch, 21)
        assert train(tmp_path / "run", **told).status == "interrupted"
    assert rljax.resume(tmp_path / "run", quiet=True).status == "completed"
    assert results(tmp_path / "run") == results(other.run_dir)


def test_a_run_whose_loss_has_other_metrics_now_is_refused(whole, tmp_path, monkeypatch):
    run_dir = Path(shutil.copytree(whole.run_dir, tmp_path / "run"))
    monkeypatch.setattr(own_losses, "with_kurtosis", own_losses.bare)
    jax.clear_caches()
    with pytest.raises(ValueError, match=r"the saved row\S*/losses/\w+ is float32") as caught:
        rljax.resume(run_dir, quiet=True)
    assert "\n" not in str(caught.value)
    jax.clear_caches()


@pytest.mark.slow
def test_workers_compute_it(tmp_path):
    """Each imports it; its metrics come with their gradients."""
    told = {**SETTINGS, **OPTIONS, **SHORT, "num_envs": 1, "num_seeds": 1, "loss": NAME}
    own = dict(num_workers=2, lockstep=True)
    run = rljax.train("a3c", **told, **own, run_dir=tmp_path / "run")
    assert run.status == "completed"
    assert list(run.metrics) == [*COLUMNS, "staleness_mean", "staleness_max"]
    assert (run.metrics["number"] == 3).all()
    assert run.metrics["largest_value"].notna().all()
    config = dataclasses.replace(CONFIG, num_envs=1, total_timesteps=80, loss="own_losses:bare")
    _, metrics = a3c.train(config, WorkerConfig(num_workers=1), jax.random.key(0))
    assert list(metrics.losses) == ["loss"]


NOTEBOOK = """
import jax.numpy as jnp
import rljax
from probes import RewardByAction

class Env(RewardByAction):
    pass

def loss(distribution, values, actions, advantages, targets, config):
    value_loss = jnp.mean(jnp.square(values - targets))
    return value_loss - jnp.mean(distribution.log_prob(actions) * advantages), {"mine": value_loss}

settings = dict(env=Env(), loss=loss, total_timesteps=200, quiet=True)
run = rljax.train("a3c", num_workers=1, num_envs=1, eval_episodes=1, **settings)
print(run.status, run.metrics["mine"].notna().all())
"""


@pytest.mark.slow
def test_workers_get_what_a_notebook_defines():
    """Its module has no file that they could import."""
    done = subprocess.run([sys.executable, "-c", NOTEBOOK], capture_output=True, text=True)
    assert done.stdout == "completed True\n", done.stderr


@pytest.mark.parametrize("algorithm", ["a2c", "a3c"])
@pytest.mark.parametrize(
    ("loss", "kind", "message"),
    [
        ("no_tuple", TypeError, r"must return \(loss, dict of scalars\), not "),
        ("a_vector", TypeError, r"the loss must be a scalar number, not of shape \[\d+\]"),
        ("a_vector_of_metrics", TypeError, r"values must be a scalar number, not of shape \[\d+\]"),
        ("a_taken_name", TypeError, "the metric 'episodic_return' must have another name"),
        ("no_name", TypeError, "a metric's name must be an identifier, not 'my metric'"),
        ("NO_FUNCTION", TypeError, "loss = 'own_losses:NO_FUNCTION': must be a function"),
        ("nothing", ValueError, "own_losses has no attribute 'nothing'"),
    ],
)
def test_a_wrong_loss_is_refused_in_a_line(tmp_path, algorithm, loss, kind, message):
    told = dict(SHORT, num_envs=1 if algorithm == "a3c" else 4, loss=f"own_losses:{loss}")
    with pytest.raises(kind, match=message) as caught:
        rljax.train(algorithm, **{**SETTINGS, **OPTIONS, **told}, run_dir=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("actor_critc", "unknown loss 'actor_critc': did you mean actor_critic"),
        (3, "must be a fun"),
    ],
)
def test_an_unknown_loss_is_refused_in_a_line(loss, message):
    with pytest.raises((ValueError, TypeError), match=message):
        train(**SHORT, loss=loss)
