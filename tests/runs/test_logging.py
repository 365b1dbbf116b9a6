"""Rows of metrics while a run trains: `on_log`, how they are spaced, and what stops a run."""

import warnings

import numpy as np
import pytest
from small_runs import TIMES, contents, results, stop_at_update, train

import rljax
from rljax.loggers import tables
from rljax.runs import checkpoints, directory

pytestmark = pytest.mark.usefixtures("undrawn")

SHORT = dict(total_timesteps=640, eval_every=0, eval_episodes=2)
"""40 updates of two seeds, each a row."""
ON_HOST = dict(env="host_probes:RewardByAction", num_envs=4, learning_rate=0.03)


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """(a run, the rows that `on_log` had)."""
    rows = []
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    return train(run_dir, **SHORT, on_log=lambda row: rows.append(row)), rows


def without_times(metrics):
    return metrics.drop(columns=TIMES)


def test_on_log_has_the_rows_of_metrics(logged):
    run, rows = logged
    assert len(rows) == 40
    seen = [values for row in rows for values in row.metrics]
    assert [values["seed"] for values in seen] == [5, 6] * 40
    assert list(seen[0]) == list(run.metrics)
    for name in run.metrics:
        if name not in TIMES:
            column = [float(values[name]) for values in seen]
            np.testing.assert_array_equal(np.float32(column), np.float32(run.metrics[name]))


def test_on_log_has_the_states_of_all_seeds(logged):
    run, rows = logged
    for i, row in enumerate(rows, 1):
        assert row.states.learner.updates.tolist() == [i, i]
        assert row.states.actor.key.shape == (2,)
        kernel = row.states.learner.params["params"]["actor_head"]["kernel"]
        assert kernel.shape == (2, 8, 2)
    saved = run.state["learner"]["params"]["params"]["actor_head"]["kernel"]
    np.testing.assert_array_equal(
        rows[-1].states.learner.params["params"]["actor_head"]["kernel"], saved
    )


def test_seeds_one_after_another_log_one_at_a_time():
    rows = []
    run = train(**{**SHORT, **ON_HOST, "log_interval": 10, "on_log": rows.append})
    assert [[v["seed"] for v in row.metrics] for row in rows] == [[5]] * 4 + [[6]] * 4
    assert rows[5].states.learner.updates.tolist() == [40, 20]
    assert run.metrics["seed"].tolist() == [5] * 4 + [6] * 4


def test_on_log_can_stop_a_run(logged, tmp_path):
    """In order: it is saved, evaluated, and can be resumed to the same bits."""
    whole, _ = logged
    run = train(
        tmp_path / "run",
        **SHORT,
        on_log=lambda row: "stop" if row.metrics[0]["updates"] == 20 else None,
    )
    assert (run.status, run.exit_status, run.summary["status"]) == ("stopped", 0, "stopped")
    assert run.summary["final_return"]["episodes"] == 2
    assert run.env_steps == [320, 320]
    assert len(run.metrics) == 2 * 20
    assert checkpoints.existing(tmp_path / "run")[-1] == 320
    assert rljax.load(tmp_path / "run").status == "stopped"
    again = rljax.resume(tmp_path / "run", quiet=True)
    assert again.status == "completed"
    assert without_times(again.metrics).equals(without_times(whole.metrics))
    kernel = again.state["learner"]["params"]["params"]["actor_head"]["kernel"]
    np.testing.assert_array_equal(
        kernel, whole.state["learner"]["params"]["params"]["actor_head"]["kernel"]
    )


@pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt])
def test_an_exception_in_on_log_loses_nothing(logged, tmp_path, kind):
    """It is raised when all is saved; an interrupt, as a notebook raises it, ends the run in
    order."""

    def fail(row):
        if row.metrics[0]["updates"] == 20:
            raise kind("mine")

    if kind is KeyError:
        with pytest.raises(KeyError, match="mine"):
            train(tmp_path / "run", **SHORT, on_log=fail)
    else:
        assert train(tmp_path / "run", **SHORT, on_log=fail).status == "interrupted"
    assert checkpoints.existing(tmp_path / "run")[-1] == 320
    assert tables.read_metrics(tmp_path / "run")["updates"].max() == 20
    again = rljax.resume(tmp_path / "run", quiet=True)
    assert without_times(again.metrics).equals(without_times(logged[0].metrics))


def test_a_run_stops_at_a_return(tmp_path):
    """At the first row where the mean over seeds is as high. Resumed it stops again, unless the
    return is another."""
    told = dict(total_timesteps=3192, eval_every=0, stop_at_return=0.5)
    run = train(tmp_path / "run", **told)
    assert run.status == "stopped"
    means = run.metrics.groupby("updates")["episodic_return"].mean().tolist()
    assert means[-1] >= 0.5
    assert max(means[:-1]) < 0.5
    assert directory.read_record(run.run_dir)["run"]["stop_at_return"] == 0.5
    again = rljax.resume(run.run_dir, quiet=True)
    assert again.status == "stopped"
    assert again.env_steps[0] > run.env_steps[0]
    assert rljax.resume(run.run_dir, stop_at_return=2, quiet=True).status == "completed"


def test_a_run_of_seeds_one_after_another_stops_at_a_return_of_all(tmp_path):
    """So not before the last has a row; also resumed, where those before are in metrics.csv."""
    told = {**SHORT, **ON_HOST, "log_interval": 10, "stop_at_return": -1.0}
    run = train(tmp_path / "run", **told)
    assert run.status == "stopped"
    assert run.metrics["updates"].tolist() == [10, 20, 30, 40, 10]
    again = rljax.resume(run.run_dir, quiet=True)
    assert again.metrics["updates"].tolist() == [10, 20, 30, 40, 10, 20]
    assert rljax.resume(run.run_dir, stop_at_return=2, quiet=True).status == "completed"


def test_rows_are_as_far_apart_as_told(logged, tmp_path):
    run = train(tmp_path / "run", **SHORT, log_interval=16)
    assert run.metrics["updates"].tolist() == [16, 16, 32, 32, 40, 40]
    assert run.metrics["episodes"].tolist() == [256, 256, 256, 256, 128, 128]
    whole = logged[0].metrics
    for seed in (5, 6):
        rows, fine = (m[m["seed"] == seed] for m in (run.metrics, whole))
        first = fine["policy_loss"][:16].mean()
        np.testing.assert_allclose(rows["policy_loss"].iloc[0], first, rtol=1e-5, atol=1e-7)
    kernel = [
        r.state["learner"]["params"]["params"]["actor_head"]["kernel"] for r in (run, logged[0])
    ]
    np.testing.assert_array_equal(*kernel)  # it changes no bit of training
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="the run has log_interval = 16, not 8"):
        rljax.resume(run.run_dir, log_interval=8)
    assert contents(tmp_path) == before
    with pytest.warns(UserWarning, match="total_timesteps raised"):
        again = rljax.resume(run.run_dir, total_timesteps=1024, quiet=True)
    assert again.metrics["updates"].tolist() == [16, 16, 32, 32, 40, 40, 48, 48, 64, 64]


def test_evaluations_and_checkpoints_are_at_rows(tmp_path):
    told = {**SHORT, "log_interval": 16, "eval_every": 200, "checkpoint_every": 100}
    run = train(tmp_path / "run", **told, keep_checkpoints=9)
    assert checkpoints.existing(run.run_dir) == [0, 256, 512, 640]
    evaluations = (run.run_dir / "evaluations.csv").read_text().splitlines()[1:]
    assert [line.split(",")[1] for line in evaluations[::2]] == ["256", "512", "640"]
    assert results(run.run_dir)["summary"]["final_return"]["episodes"] == 2


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("stopped", dict(stop_at_return=-1.0)),
        ("diverged", dict(learning_rate=1e38)),
        ("interrupted", dict(log_interval=10)),
    ],
)
def test_on_log_has_the_last_row_however_a_run_ends(monkeypatch, status, told):
    rows = []
    if status == "interrupted":
        stop_at_update(monkeypatch, 13)
    with warnings.catch_warnings(action="ignore"):  # of the divergence
        run = train(**{**SHORT, **told}, on_log=rows.append)
    assert run.status == status
    logged = [values["updates"] for row in rows for values in row.metrics]
    assert logged == run.metrics["updates"].tolist()
