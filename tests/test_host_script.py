"""A2C on environments that Python steps, as a whole: the script, its processes and its files."""

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

from rljax import a2c, evaluation
from rljax.config import Config
from rljax.loggers import tables
from rljax.runs import checkpoints
from rljax.utils import forkserver as host_processes

SCRIPT = Path(__file__).parents[1] / "experiments" / "a2c.py"
sys.path.insert(0, str(SCRIPT.parent))

CONFIG = Config(
    env="gymnasium/CartPole-v1",
    total_timesteps=320,
    num_envs=4,
    num_steps=4,
    hidden_sizes=(4,),
    normalize_observations=True,
    normalize_rewards=True,
)
SMALL = (
    "--preset none --num-envs 2 --num-steps 4 --hidden-sizes 4 --num-seeds 1 --eval-episodes 2"
    " --total-timesteps 800"
).split()
LONG = [*SMALL, *"--env host_probes:Slow --vectorization async --total-timesteps 80000".split()]


@pytest.fixture(scope="module")
def main():
    import a2c as script  # the experiment, not rljax.a2c

    return script.main


def leaves(tree):
    return jax.tree.leaves(jax.tree.map(np.asarray, tree))


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
    assert not np.array_equal(metrics.policy_loss, other.policy_loss)


def test_learning_goes_on_exactly_and_episodes_begin_anew():
    *_, (states, _) = a2c.chunks(CONFIG, jax.random.split(jax.random.key(0), 1))
    longer = dataclasses.replace(CONFIG, total_timesteps=640)
    (first, row), *_ = a2c.chunks(longer, None, states)
    (_, again), *_ = a2c.chunks(longer, None, states)
    jax.tree.map(np.testing.assert_array_equal, row, again)
    assert first.learner.updates.tolist() == [21]
    counts = [state.learner.obs_moments.count[0] for state in (states, first)]
    assert counts[1] - counts[0] == CONFIG.batch_size


def test_several_seeds_and_jit_are_refused():
    keys = jax.random.split(jax.random.key(0), 2)
    with pytest.raises(ValueError, match="2 seeds: environments stepped by Python take one"):
        next(a2c.chunks(CONFIG, keys))
    with pytest.raises(ValueError, match="stepped by Python and cannot be jitted"):
        jax.jit(a2c.train)(CONFIG, keys[0])
    with pytest.raises(ValueError, match=r"stepped by Python: use a2c.chunks"):
        a2c.update(CONFIG, a2c.init(CONFIG, keys[0]))


def test_learning_from_actions():
    config = dataclasses.replace(
        CONFIG, env="host_probes:RewardByAction", total_timesteps=6400, learning_rate=0.03
    )
    _, metrics = a2c.train(config, jax.random.key(0))
    assert metrics.episodic_return[0] < 0.7
    assert metrics.episodic_return[-1] > 0.9


# The script


def test_seeds_run_one_after_another_and_can_be_raised(main, tmp_path):
    run_dir = tmp_path / "run"
    flags = [*SMALL, "--env", "gymnasium/CartPole-v1", "--run-dir", str(run_dir), "--quiet"]
    assert main([*flags, "--num-seeds", "2", "--eval-every", "400"]) == 0
    rows = tables.read_metrics(run_dir)
    assert rows.seed.tolist() == [0] * 100 + [1] * 100
    summary = json.loads((run_dir / "summary.json").read_bytes())
    assert len(summary["final_return"]["per_seed"]) == 2
    before = updates_at(run_dir, 1600)
    assert main(["--resume", str(run_dir), "--total-timesteps", "1600", "--quiet"]) == 0
    assert (before, updates_at(run_dir, 3200)) == ([100, 100], [200, 200])
    rows = tables.read_metrics(run_dir)
    assert rows.groupby("seed").env_steps.max().tolist() == [1600, 1600]


def updates_at(run_dir, env_steps):
    folder = checkpoints.folder(run_dir, env_steps)
    return checkpoints.load(folder)[1]["state"]["learner/updates"].tolist()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--env gymnasium/CartPol-v1", "unknown environment 'CartPol-v1': did you mean CartPole"),
        ("--env host_probes:differing", "environment 0: its spaces are"),
        ("--env CartPole-v1 --vectorization async", "'CartPole-v1' is written in JAX"),
        ("--env gymnasium/CartPole-v1 --vectorization asink", "invalid choice"),
        ("--env gymnasium/CartPole-v1 --env-kwargs colour=3", "'colour'"),
        ("--env gymnasium/CartPole-v1 --env-kwargs max_episode_steps=0", "AssertionError"),
        ("--env gymnasium/CartPole-v1 --env-params x=3", "gymnasium's environments have none"),
    ],
)
def test_bad_input(main, capsys, tmp_path, flags, message):
    assert main([*SMALL, *flags.split(), "--run-dir", str(tmp_path / "run"), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_failing_environment_ends_the_run_with_its_traceback_once(main, tmp_path, capfd):
    run_dir = tmp_path / "run"
    flags = f"--env host_probes:RaisingAtThree --vectorization async --run-dir {run_dir}".split()
    assert main([*SMALL, *flags, "--quiet"]) == 1
    error = capfd.readouterr().err
    assert error.count("Traceback (most recent call last)") == 1
    assert error.count("RuntimeError: the simulator is out of fuel") == 1
    assert "environment 0 of host_probes:RaisingAtThree at step 3" in error
    assert json.loads((run_dir / "summary.json").read_bytes())["status"] == "failed"


@pytest.mark.parametrize(
    ("env", "text"),
    [
        pytest.param(
            "RaisingInEvaluation", "RuntimeError: only six licences", marks=pytest.mark.slow
        ),
        ("NoMoreThanSix", "only six licences"),
    ],
)
def test_an_evaluation_that_fails_loses_nothing(main, tmp_path, capfd, env, text):
    """In a step, or because not all environments can be made."""
    run_dir = tmp_path / "run"
    flags = f"--env host_probes:{env} --run-dir {run_dir} --quiet".split()
    assert main([*SMALL, *flags, "--eval-episodes", "9", "--eval-envs", "9"]) == 1
    assert capfd.readouterr().err.count(text) == 1
    summary = json.loads((run_dir / "summary.json").read_bytes())
    assert (summary["status"], summary["env_steps"]) == ("failed", 800)
    assert checkpoints.existing(run_dir)[-1] == 800


@pytest.mark.parametrize("what", [pytest.param("interrupt", marks=pytest.mark.slow), "reward None"])
def test_what_goes_wrong_in_this_process_loses_nothing(main, tmp_path, capfd, what):
    """KeyboardInterrupt as well, where no signal came."""
    run_dir = tmp_path / "run"
    assert main([*SMALL, "--env", "host_probes:AnsweringLate", "--env-kwargs", f"what={what}",
                 "--quiet", "--run-dir", str(run_dir)]) == 1  # fmt: skip
    error = capfd.readouterr().err
    assert "error: environment 0 of host_probes:AnsweringLate at step 202:" in error
    assert error.count("\n") == 1 or error.count("Traceback (most recent call last)") == 1
    summary = json.loads((run_dir / "summary.json").read_bytes())
    assert (summary["status"], summary["env_steps"]) == ("failed", 400)
    assert checkpoints.existing(run_dir)[-1] == 400


def test_what_was_learnt_before_a_failure_is_given(monkeypatch):
    """Also of updates since the last chunk, which takes half a second."""
    monkeypatch.setattr(a2c, "CHUNK_SECONDS", 1e9)
    config = dataclasses.replace(
        CONFIG,
        env="host_probes:AnsweringLate",
        env_kwargs=(("what", "exit"), ("steps", 15)),
        total_timesteps=16 * 1000,
        normalize_observations=False,
    )
    chunks = a2c.chunks(config, jax.random.split(jax.random.key(0), 1))
    assert [next(chunks)[1].updates.tolist() for _ in range(2)] == [[1], [3]]
    with pytest.raises(host_processes.EnvError, match="at step 15:"):
        next(chunks)


@pytest.mark.parametrize("every", [0, 400])
def test_a_single_instance(main, tmp_path, capfd, every):
    """A final evaluation comes after training's is closed; one on the way is told in a line."""
    run_dir = tmp_path / "run"
    flags = f"--env host_probes:Single --eval-every {every} --run-dir {run_dir} --quiet".split()
    assert main([*SMALL, *flags, "--num-envs", "1"]) == (1 if every else 0)
    summary = json.loads((run_dir / "summary.json").read_bytes())
    error = capfd.readouterr().err
    if not every:
        assert summary["final_return"]["mean"] == 3.0
        assert error == ""
        return
    assert error.startswith("error: in an evaluation in 1 environment: env = 'host_probes:Single':")
    assert error.count("\n") == 1
    assert (summary["status"], summary["env_steps"]) == ("failed", 400)
    assert checkpoints.existing(run_dir)[-1] == 400
    assert tables.read_metrics(run_dir).env_steps.max() == 400


def test_episodes_that_never_end_are_told_and_cut(main, tmp_path, capfd, monkeypatch):
    import display

    monkeypatch.setattr(display, "TELL_EVERY", 0.0)
    run_dir = tmp_path / "run"
    flags = f"--env host_probes:Endless --eval-max-steps 30 --run-dir {run_dir}".split()
    assert main([*SMALL, *flags, "--eval-episodes", "3"]) == 0
    out, error = capfd.readouterr()
    assert error.startswith("warning: no episode ended in training, in 400 steps of each env")
    assert error.count("\n") == 1
    assert "evaluating: 2/3 episodes · 60 steps" in out
    assert "3 episodes did not end by themselves and were cut after 30 steps" in out
    summary = json.loads((run_dir / "summary.json").read_bytes())
    assert summary["warning"] == error.removeprefix("warning: ").strip()
    final = summary["final_return"]
    assert (final["unfinished"], final["max_steps"], final["mean"]) == (3, 30, 30.0)


@pytest.mark.slow
def test_a_seeds_last_evaluation_that_a_signal_put_off(main, tmp_path, monkeypatch):
    """The next seed has not begun; --resume makes up for it."""
    flags = "--env host_probes:Counted --num-seeds 2 --eval-every 400 --quiet".split()
    dirs, begun, play = [tmp_path / name for name in ("one", "other")], [], evaluation.evaluate

    def interrupted(*args, watch, **how):
        def stop(ended, episodes, steps):
            begun.append(1) if steps == 0 else None
            if len(begun) == 2 and steps == 6:
                os.kill(os.getpid(), signal.SIGINT)
            watch(ended, episodes, steps)

        return play(*args, watch=stop, **how)

    assert main([*SMALL, *flags, "--run-dir", str(dirs[0])]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "evaluate", interrupted)
        assert main([*SMALL, *flags, "--run-dir", str(dirs[1])]) == 130
    assert checkpoints.existing(dirs[1])[-1] == 800
    assert main(["--resume", str(dirs[1]), "--quiet"]) == 0
    one, other = ((path / "evaluations.csv").read_text() for path in dirs)
    assert one == other
    assert one.count("\n") == 5


def test_divergence_is_not_taken_for_a_failing_environment(main, tmp_path, capfd):
    run_dir = tmp_path / "run"
    flags = f"--env host_probes:Explosive --learning-rate 1e38 --run-dir {run_dir} --quiet".split()
    assert main([*SMALL, *flags, "--max-grad-norm", "inf"]) == 1
    assert "seed 0 diverged" in capfd.readouterr().err
    assert json.loads((run_dir / "summary.json").read_bytes())["status"] == "diverged"
    newest = checkpoints.existing(run_dir)[-1]
    state = checkpoints.load(checkpoints.folder(run_dir, newest))[1]["state"]
    assert all(np.isfinite(x).all() for name, x in state.items() if "params" in name)


def test_an_environment_that_cannot_be_reset(main, tmp_path, capfd):
    run_dir = tmp_path / "run"
    flags = f"--env host_probes:RaisingAtReset --run-dir {run_dir} --quiet".split()
    assert main([*SMALL, *flags]) == 1
    error = capfd.readouterr().err
    assert "its first reset failed" in error
    assert error.count("Traceback") == error.count("ValueError: the track is closed") == 1
    assert not run_dir.exists()


def test_four_cartpoles_at_once():
    """A program without a guard around what it does: processes do not import it again."""
    script = SCRIPT.with_name("vectorized_envs.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    shapes = ["observations (4, 4)", "actions (4,)", "then observations (4, 4) and rewards (4,)"]
    assert (done.stdout.splitlines(), done.stderr) == (shapes, "")


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
    """(the script at work, its processes with environments)."""
    process = processes.start_script(SCRIPT, LONG, run_dir, rows=1)
    stepping = processes.children_of(process.pid)
    assert len(stepping) == 2
    return process, stepping
