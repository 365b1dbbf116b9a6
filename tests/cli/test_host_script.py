"""Runs on environments that Python steps: seeds one after another, failures, processes."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import processes_of_tests as processes
import pytest

import rljax
from rljax import a2c, evaluation
from rljax.config import Config
from rljax.loggers import display
from rljax.runs import checkpoints
from rljax.utils import forkserver, seeds

SCRIPT = Path(__file__).parents[2] / "experiments" / "a2c.py"

CONFIG = Config(
    env="gymnasium/CartPole-v1",
    total_timesteps=320,
    num_envs=4,
    num_steps=4,
    hidden_sizes=(4,),
    normalize_observations=True,
    normalize_rewards=True,
)
SMALL = dict(
    preset="none",
    num_envs=2,
    num_steps=4,
    hidden_sizes=(4,),
    num_seeds=1,
    eval_episodes=2,
    total_timesteps=800,
    quiet=True,
)
LONG = (
    "--preset none --num-envs 2 --num-steps 4 --hidden-sizes 4 --num-seeds 1 --eval-episodes 2"
    " --env host_probes:Slow --vectorization async --env-processes 2 --total-timesteps 80000"
).split()


def train(run_dir, env, **told):
    return rljax.train("a2c", env, **{**SMALL, **told}, run_dir=run_dir)


# The algorithm


def test_the_same_key_gives_the_same_bits_however_environments_are_stepped():
    runs = [
        a2c.train(dataclasses.replace(CONFIG, vectorization=v), jax.random.key(0))
        for v in ("sync", "async")
    ]
    (state, metrics), (_, again) = runs
    jax.tree.map(np.testing.assert_array_equal, *(state.learner.params for state, _ in runs))
    jax.tree.map(np.testing.assert_array_equal, metrics, again)
    assert metrics.updates.tolist() == list(range(1, 21))
    assert state.learner.updates == 20
    _, other = a2c.train(CONFIG, jax.random.key(1))
    assert not np.array_equal(metrics.losses["policy_loss"], other.losses["policy_loss"])


@pytest.mark.parametrize("core", [pytest.param("none", marks=pytest.mark.slow), "gru"])
def test_learning_continues_exactly_and_episodes_begin_anew(core):
    config = dataclasses.replace(CONFIG, core=core, core_size=4)
    *_, (states, _) = a2c.chunks(config, seeds.keys([0]))
    longer = dataclasses.replace(config, total_timesteps=640)
    (first, row), *_ = a2c.chunks(longer, None, states)
    (_, again), *_ = a2c.chunks(longer, None, states)
    jax.tree.map(np.testing.assert_array_equal, row, again)
    assert first.learner.updates.tolist() == [21]
    counts = [state.learner.obs_moments.count[0] for state in (states, first)]
    assert counts[1] - counts[0] == CONFIG.batch_size


def test_seeds_are_trained_one_after_another():
    """Each as it is alone; metrics are of the one whose updates have advanced."""
    start, alone = a2c.init_seeds(CONFIG, seeds.keys([0, 1])), []
    for i in range(2):
        *_, (states, _) = a2c.chunks(
            CONFIG, None, seeds.take(start, np.array([i])), log_interval=10
        )
        alone.append(seeds.take(states, 0).learner.params)
    updates, ended = [], []
    for states, metrics in a2c.chunks(CONFIG, None, start, log_interval=10):
        updates.append(metrics.updates.tolist())
        done = updates[-1][int(updates[-1][1] > 0)]
        if done % 10 == 0:
            assert np.isfinite(metrics.grad_norm).tolist() == [
                not updates[-1][1],
                updates[-1][1] > 0,
            ]
            assert (states.row.updates == 0).all()  # the row is empty at its end
            ended.append(updates[-1])
    assert updates[0] == [1, 0]
    assert ended == [[10, 0], [20, 0], [20, 10], [20, 20]]
    jax.tree.map(np.testing.assert_array_equal, states.learner.params, seeds.stack(alone))


def test_jit_is_refused():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="Python steps it; it cannot be jitted"):
        jax.jit(a2c.train)(CONFIG, key)
    with pytest.raises(ValueError, match=r"Python steps it: use a2c.chunks"):
        a2c.update(CONFIG, a2c.init(CONFIG, key))


def test_learning_from_actions():
    config = dataclasses.replace(
        CONFIG, env="host_probes:RewardByAction", total_timesteps=6400, learning_rate=0.03
    )
    _, metrics = a2c.train(config, jax.random.key(0))
    assert metrics.episodic_return[0] < 0.7
    assert metrics.episodic_return[-1] > 0.9


# Runs


@pytest.mark.slow
def test_seeds_run_one_after_another_and_can_be_raised(tmp_path):
    run = train(tmp_path / "run", "host_probes:RewardByAction", num_seeds=2, eval_every=400)
    assert run.metrics.seed.tolist() == [0] * 100 + [1] * 100
    assert len(run.summary["final_return"]["per_seed"]) == 2
    before = updates_at(run.run_dir, 1600)
    with pytest.warns(UserWarning, match="total_timesteps raised from 800 to 1,600"):
        raised = rljax.resume(run.run_dir, total_timesteps=1600, quiet=True)
    assert (before, updates_at(run.run_dir, 3200)) == ([100, 100], [200, 200])
    assert raised.metrics.groupby("seed").env_steps.max().tolist() == [1600, 1600]
    assert raised.metrics.seed.tolist() == [0] * 100 + [1] * 100 + [0] * 100 + [1] * 100


def updates_at(run_dir, env_steps):
    folder = checkpoints.folder(run_dir, env_steps)
    return checkpoints.load(folder)[1]["state"]["learner/updates"].tolist()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (dict(env="gymnasium/CartPol-v1"), "unknown environment 'CartPol-v1': did you mean CartP"),
        (dict(env="host_probes:differing"), "environment 0: its spaces are"),
        (dict(env="CartPole-v1", vectorization="async"), "'CartPole-v1' is written in JAX"),
        (dict(vectorization="asink"), "unknown vectorization 'asink'"),
        (dict(env_kwargs={"colour": 3}), "'colour'"),
        (dict(env_kwargs={"max_episode_steps": 0}), "AssertionError"),
        (dict(env_params={"x": 3}), "gymnasium's environments have none"),
    ],
)
def test_bad_input(tmp_path, told, message):
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        train(tmp_path / "run", **{"env": "gymnasium/CartPole-v1", **told})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_failing_environment_ends_the_run_with_its_traceback_once(tmp_path):
    with pytest.raises(forkserver.EnvError) as caught:
        train(tmp_path / "run", "host_probes:RaisingAtThree", vectorization="async")
    error = str(caught.value)
    assert error.count("Traceback (most recent call last)") == 1
    assert error.count("RuntimeError: the simulator is out of fuel") == 1
    assert "environment 0 of host_probes:RaisingAtThree at step 3" in error
    run = rljax.load(tmp_path / "run")
    assert (run.status, run.summary["error"]) == ("failed", error)


@pytest.mark.parametrize(
    ("env", "text"),
    [
        pytest.param(
            "RaisingInEvaluation", "RuntimeError: only six licences", marks=pytest.mark.slow
        ),
        ("NoMoreThanSix", "only six licences"),
    ],
)
def test_an_evaluation_that_fails_loses_nothing(tmp_path, env, text):
    """In a step, or because not all environments can be made."""
    run_dir = tmp_path / "run"
    with pytest.raises(forkserver.EnvError, match=text):
        train(run_dir, f"host_probes:{env}", eval_episodes=9, eval_envs=9)
    summary = rljax.load(run_dir).summary
    assert (summary["status"], summary["env_steps"]) == ("failed", 800)
    assert checkpoints.existing(run_dir)[-1] == 800


@pytest.mark.parametrize("what", [pytest.param("interrupt", marks=pytest.mark.slow), "reward None"])
def test_what_goes_wrong_in_this_process_loses_nothing(tmp_path, what):
    """KeyboardInterrupt as well, where no signal came."""
    run_dir = tmp_path / "run"
    with pytest.raises(forkserver.EnvError) as caught:
        train(run_dir, "host_probes:AnsweringLate", env_kwargs={"what": what})
    error = str(caught.value)
    assert error.startswith("environment 0 of host_probes:AnsweringLate at step 202:")
    assert "\n" not in error or error.count("Traceback (most recent call last)") == 1
    run = rljax.load(run_dir)
    assert (run.status, run.env_steps) == ("failed", [400])
    assert checkpoints.existing(run_dir)[-1] == 400


def test_a_run_that_fails_without_a_directory_raises_as_well():
    told = dict(env_kwargs={"what": "reward None", "steps": 15})
    with pytest.raises(forkserver.EnvError, match="at step 15:"):
        train(None, "host_probes:AnsweringLate", **told)


def test_what_was_learned_before_a_failure_is_given(monkeypatch):
    """Also of updates since the last chunk, which takes half a second."""
    monkeypatch.setattr(seeds, "CHUNK_SECONDS", 1e9)
    config = dataclasses.replace(
        CONFIG,
        env="host_probes:AnsweringLate",
        env_kwargs=(("what", "exit"), ("steps", 15)),
        total_timesteps=16 * 1000,
        normalize_observations=False,
    )
    chunks = a2c.chunks(config, seeds.keys([0]))
    assert [next(chunks)[1].updates.tolist() for _ in range(2)] == [[1], [3]]
    with pytest.raises(forkserver.EnvError, match="at step 15:"):
        next(chunks)


@pytest.mark.parametrize("every", [0, 400])
def test_a_single_instance(tmp_path, every):
    """A final evaluation comes after training's is closed; one on the way is told in a line."""
    run_dir = tmp_path / "run"
    told = dict(eval_every=every, num_envs=1)
    if not every:
        run = train(run_dir, "host_probes:Single", **told)
        assert run.summary["final_return"]["mean"] == 3.0
        return
    message = r"in an evaluation in 1 environment: env = 'host_probes:Single':"
    with pytest.raises(forkserver.EnvError, match=message) as caught:
        train(run_dir, "host_probes:Single", **told)
    assert "\n" not in str(caught.value)
    run = rljax.load(run_dir)
    assert (run.status, run.env_steps) == ("failed", [400])
    assert checkpoints.existing(run_dir)[-1] == 400
    assert run.metrics.env_steps.max() == 400


def test_episodes_that_never_end_are_told_and_cut(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(display, "EVALUATION_EVERY", 0.0)
    told = dict(eval_max_steps=30, eval_episodes=3, quiet=False)
    with pytest.warns(UserWarning, match="no episode ended in training, in 400 steps of") as caught:
        run = train(tmp_path / "run", "host_probes:Endless", **told)
    assert [str(warning.message) for warning in caught] == [run.summary["warning"]]
    out = capsys.readouterr().out
    assert "evaluating: 2/3 episodes · 60 steps" in out
    assert "3 episodes did not end by themselves and were cut after 30 steps" in out
    final = run.summary["final_return"]
    assert (final["unfinished"], final["max_steps"], final["mean"]) == (3, 30, 30.0)


@pytest.mark.slow
def test_a_seeds_last_evaluation_that_a_signal_put_off(tmp_path, monkeypatch):
    """The next seed has not begun; resuming makes up for it."""
    told = dict(num_seeds=2, eval_every=400)
    dirs, begun, evaluate = [tmp_path / name for name in ("one", "other")], [], evaluation.evaluate

    def interrupted(*args, watch, **how):
        def stop(ended, episodes, steps):
            begun.append(1) if steps == 0 else None
            if len(begun) == 2 and steps == 6:
                os.kill(os.getpid(), signal.SIGINT)
            watch(ended, episodes, steps)

        return evaluate(*args, watch=stop, **how)

    assert train(dirs[0], "host_probes:Counted", **told).status == "completed"
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "evaluate", interrupted)
        assert train(dirs[1], "host_probes:Counted", **told).exit_status == 130
    assert checkpoints.existing(dirs[1])[-1] == 800
    assert rljax.resume(dirs[1], quiet=True).status == "completed"
    one, other = ((path / "evaluations.csv").read_text() for path in dirs)
    assert one == other
    assert one.count("\n") == 5


def test_divergence_is_not_taken_for_a_failing_environment(tmp_path):
    told = dict(learning_rate=1e38, max_grad_norm=float("inf"))
    with pytest.warns(UserWarning, match="seed 0 diverged"):
        run = train(tmp_path / "run", "host_probes:Explosive", **told)
    assert (run.status, run.error) == ("diverged", None)
    newest = checkpoints.existing(run.run_dir)[-1]
    state = checkpoints.load(checkpoints.folder(run.run_dir, newest))[1]["state"]
    assert all(np.isfinite(x).all() for name, x in state.items() if "params" in name)


def test_an_environment_that_cannot_be_reset(tmp_path):
    run_dir = tmp_path / "run"
    with pytest.raises(forkserver.EnvError, match="its first reset failed") as caught:
        train(run_dir, "host_probes:RaisingAtReset")
    error = str(caught.value)
    assert error.count("Traceback") == error.count("ValueError: the track is closed") == 1
    assert not run_dir.exists()


# Processes


@pytest.mark.slow
def test_four_cartpoles_at_once():
    """A program without a guard around what it does: processes do not import it again."""
    script = SCRIPT.with_name("vectorized_envs.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    shapes = ["observations (4, 4)", "actions (4,)", "then observations (4, 4) and rewards (4,)"]
    assert (done.stdout.splitlines(), done.stderr) == (shapes, "")


@pytest.mark.slow
def test_a_program_that_closes_nothing_ends_all_the_same(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import tempfile; early = tempfile.TemporaryDirectory()  # weakref's hook before others\n"
        "from rljax import envs\n"
        "env = envs.make('gymnasium/CartPole-v1', num_envs=2, vectorization='async')\n"
        "running = env.open()\n"
        "running.reset([0, 1])\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_ctrl_c_while_processes_step_leaves_none(tmp_path):
    """To the whole group, as a terminal sends it."""
    run_dir = tmp_path / "run"
    process, stepping = start_long(run_dir)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (130, "")
    assert not stepping & set(processes.parents())
    summary = json.loads((run_dir / "summary.json").read_bytes())
    assert summary["status"] == "interrupted"


@pytest.mark.slow  # tests/test_host.py has it without the script
def test_a_killed_process_ends_the_run_within_seconds(tmp_path):
    process, stepping = start_long(tmp_path / "run")
    os.kill(min(stepping), signal.SIGKILL)
    killed = time.monotonic()
    _, error = process.communicate(timeout=30)
    assert time.monotonic() - killed < 10
    assert process.returncode == 1
    assert "of host_probes:Slow at step" in error
    assert "its process was killed by SIGKILL" in error
    assert error.count("\n") == 1
    assert not stepping & set(processes.parents())


@pytest.mark.slow
def test_no_process_outlives_a_killed_main_process(tmp_path):
    process, stepping = start_long(tmp_path / "run")
    process.kill()
    _, error = process.communicate()
    deadline = time.monotonic() + 5
    while stepping & set(processes.parents()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not stepping & set(processes.parents())
    assert "Traceback" not in error


def start_long(run_dir):
    """(the script in training, its processes with environments)."""
    process = processes.start_script(SCRIPT, LONG, run_dir, rows=1)
    stepping = processes.children_of(process.pid)
    assert len(stepping) == 2
    return process, stepping
