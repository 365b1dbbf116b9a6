"""What processes that are started have of the one that starts them, and what they leave."""

import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import processes_of_tests as living
import pytest
from host_probes import RewardByAction

from rljax import a2c, a3c, envs, sweep
from rljax.config import Config, WorkerConfig
from rljax.sweep import trial_pool
from rljax.utils import forkserver

CONFIG = Config(
    env="telling_probes:Telling",
    total_timesteps=48,
    num_envs=1,
    num_steps=4,
    hidden_sizes=(4,),
)


def on(config, folder, **changes):
    """The config, of an environment that is told a folder."""
    folder.mkdir(exist_ok=True)
    return dataclasses.replace(config, env_kwargs=(("folder", str(folder)),), **changes)


def train_a3c(folder, seed, **changes):
    a3c.train(on(CONFIG, folder, **changes), WorkerConfig(num_workers=3), jax.random.key(seed))


def train_async(folder, seed):
    config = on(CONFIG, folder, num_envs=3, vectorization="async")
    a2c.train(config, jax.random.key(seed))


def train_sweep(folder, seed):
    """Three trials, one of them in a process that has had another."""
    seeds = range(10 * seed, 10 * seed + 3)
    sweep.run(on(CONFIG, folder), {"gamma": [0.9]}, seeds, max_parallel=2, eval_episodes=0)


WAYS = {"a3c": train_a3c, "async": train_async, "sweep": train_sweep}


def told(folder):
    """What environments of `Telling` wrote, in the order of their seeds."""
    files = sorted(folder.glob("*.json"), key=lambda path: int(path.stem))
    return [json.loads(path.read_text()) for path in files if path.stem != "0"]  # 0: to look at it


@pytest.mark.parametrize(
    "way",
    [
        "async",
        pytest.param("a3c", marks=pytest.mark.slow),
        pytest.param("sweep", marks=pytest.mark.slow),
    ],
)
def test_processes_have_generators_of_their_own_and_settings_from_here(tmp_path, way):
    """NumPy's and Python's global generators are seeded from each one's key, while an environment
    is made and when it is reset; and not here. JAX's settings are those of here, whatever the
    environment variables say, and those of a context as well."""
    before = np.random.get_state()[1].tolist(), np.random.get_state()[2]
    with jax.default_matmul_precision("float32"), jax.threefry_partitionable(False):
        here = {name: str(value) for name, value in forkserver.jax_settings().items()}
        for name, seed in (("one", 1), ("again", 1), ("other", 2)):
            WAYS[way](tmp_path / name, seed)
    assert (np.random.get_state()[1].tolist(), np.random.get_state()[2]) == before
    one, again, other = (told(tmp_path / name) for name in ("one", "again", "other"))
    assert len(one) == 3
    assert one == again
    drawn = np.ravel([x["draws"] for x in (*one, *other)])
    assert len(set(drawn.tolist())) == drawn.size == 2 * 3 * 2 * 2
    assert here["jax_default_matmul_precision"] == "float32"
    assert here["jax_threefry_partitionable"] == "False"
    assert [x["settings"] for x in one] == [here] * 3


@pytest.mark.slow
def test_a_worker_that_is_started_again_draws_other_numbers(tmp_path):
    """It was killed after it had pushed: its key went on."""
    config = on(CONFIG, tmp_path, total_timesteps=400_000)
    chunks = a3c.chunks(config, WorkerConfig(num_workers=2), jax.random.key(1)[None])
    with pytest.warns(UserWarning, match="was killed by SIGKILL; started again"):
        states = kill_a_worker(chunks, tmp_path)
    drawn = np.ravel([x["draws"] for x in told(tmp_path)])
    assert len(set(drawn.tolist())) == drawn.size == 3 * 2 * 2
    assert states.counts.restarts.tolist() == [1]


def kill_a_worker(chunks, folder):
    """The states once another has told of itself."""
    killed = False
    with contextlib.closing(chunks):
        for states, metrics in chunks:
            if not killed and metrics.updates[0] > 1000:
                os.kill(max(living.children_of(os.getpid())), signal.SIGKILL)
                killed = True
            if len(told(folder)) == 3:
                return states
    raise AssertionError("none was started again")


# What environments start


def are_gone(pids, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and pids & set(living.parents()):
        time.sleep(0.02)
    return not pids & set(living.parents())


def started(folder):
    return {int(path.name) for path in folder.iterdir() if path.name.isdecimal()}


WITH_CHILDREN = dataclasses.replace(CONFIG, env="process_probes:WithChildren")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["closed", "killed"])
def test_what_an_environment_in_a_process_starts_ends_with_it(tmp_path, how):
    config = on(WITH_CHILDREN, tmp_path)
    how = dict(vectorization="async", env_processes=2)
    with envs.make(config.env, config.env_kwargs, num_envs=2, **how).open() as running:
        running.reset([0, 1])
        running.step(np.zeros(2, np.int32))
        assert len(started(tmp_path)) == 8
        assert started(tmp_path) <= set(living.parents())
        if how == "killed":
            os.kill(running._envs.processes[1].pid, signal.SIGKILL)
            with pytest.raises(forkserver.EnvError, match=r"environment 1 of .* killed by SIGKILL"):
                running.step(np.zeros(2, np.int32))
    assert are_gone(started(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["a3c", "sweep"])
def test_what_an_environment_in_a_worker_starts_ends_with_it(tmp_path, way):
    config = on(WITH_CHILDREN, tmp_path)
    if way == "a3c":
        state, _ = a3c.train(config, WorkerConfig(num_workers=1), jax.random.key(0))
        assert state.counts.restarts == 0
    else:
        sweep.run(config, {"gamma": [0.9]}, [0], eval_episodes=0)
    assert len(started(tmp_path)) >= 4
    assert are_gone(started(tmp_path))


PROGRAM = """
import sys, jax, numpy as np
from rljax import a2c, a3c, sweep
from rljax.config import Config, WorkerConfig
way, env, folder = sys.argv[1:]
config = Config(env=env, env_kwargs=(("folder", folder),) if folder else (), num_envs=1,
                total_timesteps=10**9, num_steps=4, hidden_sizes=(4,))
if way == "a3c":
    chunks = a3c.chunks(config, WorkerConfig(num_workers=2), jax.random.key(0)[None])
    any(metrics.updates[0] > 10 for state, metrics in chunks)
if way == "sweep":
    groups = sweep.plan(config, [{"gamma": 0.9}], [0, 1], "a3c", (WorkerConfig(num_workers=1),))
    chunks = sweep.chunks(groups, sweep.SweepOptions(max_parallel=2, eval_episodes=0))
    any(progress.env_steps for progress in chunks)
if way == "async":
    config.__dict__.update(num_envs=2, vectorization="async")
    chunks = a2c.chunks(config, jax.random.key(0)[None])
    next(chunks)
print("ready", flush=True)
sys.stdin.read(1)
raise RuntimeError("the end")
"""


def start_program(way, env, folder=""):
    """A program that leaves a generator of chunks open, ready to fail."""
    command = [sys.executable, "-c", PROGRAM, way, env, str(folder)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout.readline() == "ready\n", process.communicate()
    return process


def below(pid):
    """All that a process started, and what that started, and so on."""
    parents, found = living.parents(), {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


@pytest.mark.parametrize(
    ("way", "ends"),
    [
        pytest.param("a3c", "by itself", marks=pytest.mark.slow),
        pytest.param("sweep", "by itself", marks=pytest.mark.slow),
        pytest.param("async", "by itself", marks=pytest.mark.slow),
        pytest.param("sweep", "killed", marks=pytest.mark.slow),
        pytest.param("async", "killed", marks=pytest.mark.slow),
    ],
)
def test_a_program_ends_where_it_does_not_close_its_chunks(tmp_path, way, ends):
    """By an exception, and with `kill -9`; nothing is left of it."""
    process = start_program(way, "process_probes:WithChildren", tmp_path)
    left = below(process.pid) | started(tmp_path)
    assert len(left) > 8
    if ends == "killed":
        process.kill()
    _, error = process.communicate("x", timeout=30)
    assert process.returncode == (1 if ends == "by itself" else -signal.SIGKILL)
    assert error.count("Traceback") == (ends == "by itself")
    assert "RuntimeWarning" not in error
    assert are_gone(left)


@pytest.mark.slow
def test_a_stopped_worker_ends_with_its_parent():
    """It can do nothing about it itself."""
    process = start_program("a3c", "host_probes:RewardByAction")
    left = below(process.pid)
    for worker in living.children_of(process.pid):
        os.kill(worker, signal.SIGSTOP)
    process.kill()
    process.communicate()
    assert are_gone(left)


# What fails


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "words"),
    [
        ("process_probes:Exiting", "SystemExit: 3"),
        ("process_probes:ExitingInJax", "KeyboardInterrupt"),
    ],
)
def test_an_exit_in_a_worker_ends_the_run_and_names_it(env, words):
    config = dataclasses.replace(CONFIG, env=env, total_timesteps=4000)
    with pytest.raises(a3c.WorkerError) as caught:
        a3c.train(config, WorkerConfig(num_workers=1), jax.random.key(0))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("worker 0 failed after ")
    assert lines[0].endswith(f" steps in {env}:")
    assert lines[-1] == words


@pytest.mark.slow
def test_a_worker_that_dies_in_between_ends_the_run_too():
    """It pushes a few gradients each time. `train` warns by itself."""
    config = dataclasses.replace(CONFIG, env="process_probes:Aborting", total_timesteps=4000)
    workers = WorkerConfig(num_workers=1, max_worker_restarts=2)
    text = "worker 0 was killed by SIGABRT"
    with (
        pytest.warns(UserWarning, match=f"{text}; started again where its last gradient left it"),
        pytest.raises(a3c.WorkerError, match=f"{text} after .* started again 2 times within"),
    ):
        a3c.train(config, workers, jax.random.key(0))


@pytest.mark.slow
def test_a_trial_fails_in_a_process_whatever_its_error_says():
    """Nothing, or not even that."""
    whys = ("nothing", "unsayable", "exit")
    config = dataclasses.replace(CONFIG, env="host_probes:RewardByAction")
    (whole,) = sweep.plan(config, [{"gamma": 0.9}], [7])[0].trials
    config = dataclasses.replace(CONFIG, env="process_probes:Refusing")
    trials = [
        whole._replace(config=dataclasses.replace(config, env_kwargs=(("why", why),)))
        for why in whys
    ]
    trials.append(whole)
    steps = list(trial_pool.train(trials, sweep.SweepOptions(max_parallel=1, eval_episodes=0)))
    said = [step.failure.why for step in steps if step.failure]
    kinds = ("ValueError", "UnsayableError", "SystemExit")
    assert said == [f"env = 'process_probes:Refusing': {kind}" for kind in kinds]
    assert [step.result.trials for step in steps if step.result] == [[whole]]


class Unsendable:
    """Makes environments, and cannot be sent for a reason without words."""

    def __call__(self):
        return RewardByAction()

    def __reduce__(self):
        raise NotImplementedError


UNSENDABLE = dataclasses.replace(CONFIG, env=Unsendable())


@pytest.mark.parametrize(
    "use",
    [
        lambda: a3c.train(UNSENDABLE, WorkerConfig(num_workers=1), jax.random.key(0)),
        lambda: envs.make(UNSENDABLE.env, num_envs=2, vectorization="async").open(),
        lambda: sweep.run(UNSENDABLE, {"gamma": [0.9]}, [0], eval_episodes=0),
    ],
    ids=["a3c", "async", "sweep"],
)
def test_what_cannot_be_sent_is_refused_whatever_its_error_is(use):
    with pytest.raises(
        (TypeError, forkserver.RefusedError), match=r"be sent to .* name it as"
    ) as e:
        use()
    assert "(NotImplementedError)" in str(e.value)


def test_seeds_of_generators_are_apart():
    """As numbers of a key may be small, and one of them may be the number of something."""
    drawn, before = [], (np.random.get_state(), random.getstate())
    for numbers in ((0,), (0, 0), (0, 1), (1,), (1, 0), (2**32 - 1, 0)):
        forkserver.seed_generators(*np.uint32(numbers))
        drawn += [np.random.random(), random.random()]
    np.random.set_state(before[0])
    random.setstate(before[1])
    assert len(set(drawn)) == 12
