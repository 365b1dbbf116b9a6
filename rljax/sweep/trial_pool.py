"""Trials trained in processes, a bounded number at a time: those of A3C, and those in environments
that Python steps. A process takes one trial after another, so that what it compiled serves again.
"""

import contextlib
import os
import pickle
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import connection
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

import jax
import numpy as np

from rljax import algorithms
from rljax.config import at_row_end, default_log_interval
from rljax.envs import host_envs
from rljax.sweep.results import Failure, Progress, Result
from rljax.sweep.trials import Execution, Trial
from rljax.utils import errors, forkserver, seeds
from rljax.utils.errors import TrainingError

TICK = 0.25
"""Seconds between two looks, at most."""


class Job(NamedTuple):
    """What a process is given."""

    trial: Trial
    how: Execution


class _Process(NamedTuple):
    process: Any
    pipe: Any
    """This end of it."""


def usual_parallel(trial: Trial) -> int:
    """How many trials keep all cores busy."""
    each = max([getattr(options, "num_workers", 1) for options in trial.own], default=1)
    if trial.config.vectorization == "async":
        each = trial.config.num_envs
    return max(1, len(os.sched_getaffinity(0)) // each)


def train(trials: Sequence[Trial], how: Execution) -> Iterator[Progress]:
    """Trains the trials of a group, and evaluates them; closing the generator ends their processes.

    A trial that fails, by an exception or with its process, is reported and left out; the others
    continue.

    Raises:
        TypeError: an environment or network object cannot be sent to a process.
    """
    left = [trial for trial in trials if trial.number not in how.done]
    jobs = [(trial, forkserver.packed(Job(trial, how._replace(done=())))) for trial in left]
    jobs.reverse()  # the next one is taken from the end
    number = min(how.parallel or usual_parallel(trials[0]), len(jobs))
    forkserver.start_server()
    with contextlib.ExitStack() as stack:
        busy = {}
        for _ in range(number):
            one = _start(stack)
            busy[one] = _give(one, jobs)
        before = time.perf_counter()
        while any(busy.values()):
            for progress in _look(busy, jobs, stack):
                now = time.perf_counter()
                yield progress._replace(seconds=now - before)
                before = now


def _look(busy, jobs, stack):
    """What the processes have to tell; those that are done get the next job."""
    found = connection.wait([one.pipe for one, trial in busy.items() if trial], TICK)
    if not found:
        yield Progress()
    for one, trial in list(busy.items()):
        if one.pipe not in found:
            continue
        try:
            env_steps, metrics, eval_return, failure = one.pipe.recv()
        except (EOFError, OSError):
            one.process.join()
            failure = f"its process {forkserver.how_it_ended(one.process.exitcode)}"
            del busy[one]
            one = _start(stack)
        if failure is not None:
            busy[one] = _give(one, jobs)
            yield Progress(failure=Failure(trial, failure))
        elif metrics is None:
            yield Progress(env_steps)
        else:
            busy[one] = _give(one, jobs)
            returns = None if eval_return is None else np.array([eval_return])
            yield Progress(result=Result([trial], metrics, returns))


def _start(stack):
    """A process, which ends with the stack."""
    here, there = forkserver.context.Pipe()
    process = forkserver.context.Process(target=_run, args=(there, forkserver.jax_settings()))
    with forkserver.signals_held_back(), forkserver.main_module_left_out():
        process.start()
    there.close()

    def end():
        process.kill()  # it holds nothing that can be lost; those it started end with it
        process.join()
        here.close()

    # Should nobody close the stack: before multiprocessing waits for its processes.
    stack.callback(Finalize(None, end, exitpriority=10))
    return _Process(process, here)


def _give(one, jobs):
    """Sends the next job; its trial, or None where there is none left."""
    if not jobs:
        return None
    trial, packed = jobs.pop()
    with contextlib.suppress(BrokenPipeError):  # it died, which its pipe will say
        one.pipe.send_bytes(packed)
    return trial


def _run(pipe, settings: Mapping[str, Any]):
    """A process, from its first line on.

    NumPy's and Python's global generators are seeded from each trial's seed.
    """
    forkserver.begin()
    from rljax.utils import preload  # noqa: F401  before anything imports JAX, the job as well

    forkserver.take_over(settings)
    with contextlib.suppress(EOFError, OSError):  # the other end of its pipe is gone
        while True:
            packed = pipe.recv_bytes()
            try:
                _train(pipe, pickle.loads(packed))
            except (TrainingError, ValueError, TypeError) as error:
                pipe.send((0, None, None, errors.text_of(error)))
            except BaseException:  # sys.exit is the trial's failure, and not the process's
                pipe.send((0, None, None, traceback.format_exc()))


def _train(pipe, job):
    """Trains a trial; sends environment steps as they come, and at the end rows of metrics
    [R, 1]."""
    from rljax import evaluation

    trial, how = job
    config, key = trial.config, jax.random.key(trial.seed)
    log_interval = default_log_interval(config)
    forkserver.seed_generators(trial.seed)
    chunks = algorithms.module(trial.algorithm).chunks(config, *trial.own, key[None])
    rows, done, state, metrics = {}, 0, None, None
    try:
        for state, metrics in chunks:  # noqa: B007  the last state is evaluated
            updates = int(metrics.updates[0])
            pipe.send(((updates - done) * config.batch_size, None, None, None))
            if updates > done and at_row_end(config, updates, log_interval):
                rows[updates] = metrics
            done = updates
    except TrainingError as error:
        if metrics is None or host_envs.ACTION_NOT_FINITE not in str(error):
            raise
        metrics = metrics._replace(diverged_at=np.array([max(1, done)], np.int32))
    is_whole = done == config.num_updates
    if not is_whole:  # environments could not continue with parameters of NaN
        rows[done] = metrics
    eval_return = None
    if how.eval_episodes and is_whole:
        result = evaluation.evaluate(
            config,
            state.learner,
            evaluation.evaluation_keys(key[None], config.num_updates),
            how.eval_episodes,
            how.greedy,
            num_envs=how.eval_envs,
            max_steps=how.eval_max_steps,
        )
        eval_return = float(result.returns.astype(float).mean())
    pipe.send((0, seeds.stack(list(rows.values())), eval_return, None))
