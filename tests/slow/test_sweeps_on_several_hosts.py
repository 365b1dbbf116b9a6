"""Sweeps that several processes on the loopback train as one, and their deaths."""

import time

import pytest
from host_processes import finish, in_the_end_killed, start, told_on, wait_for

from rljax import Config, sweep
from rljax.sweep import results

pytestmark = pytest.mark.slow

SWEEP_STEPS = 160_000
SWEEP = (
    "--env CartPole-v1 --preset none --num-envs 4 --num-steps 4 --hidden-sizes 8 --num-seeds 3"
    f" --eval-episodes 2 --max-parallel 2 --log-format plain --total-timesteps {SWEEP_STEPS}"
    " --axis learning_rate=0.001,0.003"
).split()


def journal_lines(run_dir):
    """Batches that a sweep has finished."""
    path = run_dir / "finished.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The table of a sweep in this process alone."""
    run_dir = tmp_path_factory.mktemp("sweeps") / "alone"
    how = dict(algorithm="a2c", max_parallel=2, eval_episodes=2, quiet=True)
    shape = dict(num_envs=4, num_steps=4, hidden_sizes=(8,))
    base = Config(env="CartPole-v1", total_timesteps=SWEEP_STEPS, **shape)
    return sweep.run(base, {"learning_rate": [0.001, 0.003]}, range(3), run_dir=run_dir, **how)


def test_a_sweep_over_all_devices_of_two_processes_has_the_same_table(swept, tmp_path):
    told = finish(2, [*SWEEP, "--run-dir", str(tmp_path / "sweep")], "sweep.py")
    assert results.read(tmp_path / "sweep").equals(swept)
    assert "6 of 6 trials" in told[0][0]
    assert "trials" not in told[1][0]
    # A summary is of the whole sweep, which is complete: there is nothing left to do for either.
    told = finish(2, ["--resume", str(tmp_path / "sweep")], "sweep.py")
    assert "there is nothing left to do" in told[0][0]


def test_a_death_ends_all_of_a_sweep_which_is_resumed_to_the_same_table(swept, tmp_path):
    run_dir = tmp_path / "sweep"
    processes = start(2, [*SWEEP, "--run-dir", str(run_dir)], "sweep.py")
    with in_the_end_killed(processes):
        wait_for(lambda: journal_lines(run_dir) >= 1, processes)
        processes[1].kill()
        begun = time.monotonic()
        _, error = processes[0].communicate(timeout=60)
        assert time.monotonic() - begun < 15
    assert processes[0].returncode == 1
    assert told_on(error) == ["error: process 1 of 2 has ended"]
    finish(2, ["--resume", str(run_dir)], "sweep.py")
    assert results.read(run_dir).equals(swept)


@pytest.mark.parametrize(
    ("flags", "other", "message"),
    [
        (["--algorithm", "a3c", "--preset", "none"], [], "coordinator: a3c in env = 'CartPole-v1'"),
        (SWEEP, ["--num-steps", "5"], "num_steps = 5: is 4 in process 0"),
    ],
)
def test_a_sweep_that_two_processes_cannot_train(tmp_path, flags, other, message):
    flags = [*flags, "--axis", "gamma=0.9,0.99", "--run-dir", str(tmp_path / "sweep")]
    processes = start(2, flags, "sweep.py", {1: other})
    with in_the_end_killed(processes):
        told = [told_on(process.communicate(timeout=90)[1]) for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    assert [len(lines) for lines in told] == [1, 1]
    assert message in told[1][0]
    assert not (tmp_path / "sweep").exists()


FULL_DISK = """
import sys
from rljax.cli import sweep
from rljax.sweep.journal import Journal
from rljax.utils.atomic_io import WriteError
def add(*_):
    raise WriteError("No space left on device")
Journal.add = add
sys.exit(sweep.main("Sweeps."))
"""
NO_MEMORY = """
import sys
from rljax.cli import sweep
from rljax.sweep import population
from rljax.utils.forkserver import EnvError
def evaluated(*_):
    raise EnvError("RESOURCE_EXHAUSTED")
population.evaluated = evaluated
sys.exit(sweep.main("Sweeps."))
"""


@pytest.mark.parametrize(
    ("code", "messages"),
    [
        ({0: FULL_DISK}, ["error: No space left on device; resume", "process 0 of 2 has ended"]),
        ({1: NO_MEMORY}, ["process 1 of 2 failed", ""]),
    ],
    ids=["full disk", "no memory"],
)
def test_what_fails_in_one_process_ends_all_of_a_sweep(tmp_path, code, messages):
    """A batch that fails in one fails in all: the next ones are trained."""
    flags = [*SWEEP, "--total-timesteps", "1600", "--run-dir", str(tmp_path / "sweep")]
    processes = start(2, flags, "sweep.py", code=code)
    begun = time.monotonic()
    with in_the_end_killed(processes):
        told = [process.communicate(timeout=120)[1] for process in processes]
    assert time.monotonic() - begun < 90
    assert [process.returncode for process in processes] == [1, 1]
    assert messages[0] in told[0]
    assert 0 not in code or messages[1] in told[1]
