"""Trials trained in processes, a bounded number at a time: those of A3C, and those in environments
that Python steps. A process takes one trial after another, so that what it compiled serves again.
"""

import contextlib
import time
import traceback
from collections.abc import Collection, Iterator, Sequence
from multiprocessing import connection
from multiprocessing.util import Finalize

import cloudpickle
import numpy as np

from rljax import algorithms
from rljax.config import at_row_end, default_log_interval
from rljax.envs import host_envs, jax_envs
from rljax.sweep.options import SweepOptions
from rljax.sweep.results import Failure, Progress, Result, evaluated
from rljax.sweep.trials import Trial
from rljax.utils import errors, forkserver, platform, seeds
from rljax.utils.errors import TrainingError

TICK = 0.25  # seconds between two looks at the processes, at most


def usual_parallel(trial: Trial) -> int:
    """How many trials keep all cores busy."""
    each = max([getattr(options, "num_workers", 1) for options in trial.own], default=1)
    if trial.config.vectorization == "async":
        each = min(trial.config.env_processes or platform.cores(), trial.config.num_envs)
    return max(1, platform.cores() // each)


def train(
    trials: Sequence[Trial], how: SweepOptions, done: Collection[int] = ()
) -> Iterator[Progress]:
    """Trains the trials of a group, and evaluates them; closing the generator ends their processes.

    A trial that fails, by an exception or with its process, is reported and left out; the others
    continue. Raises TypeError if an environment, network or loss cannot be sent to a process.
    """
    left = [trial for trial in trials if trial.number not in done]
    jobs = [(trial, forkserver.packed((trial, how), cloudpickle.dumps)) for trial in left]
    jobs.reverse()  # the next one is taken from the end
    number = min(how.max_parallel or usual_parallel(trials[0]), len(jobs))
    forkserver.start_server()
    with contextlib.ExitStack() as stack:
        busy = {}  # this end of a process's pipe: the process and its trial, if it has one
        for _ in range(number):
            pipe, process = _start(stack)
            busy[pipe] = process, _give(pipe, jobs)
        before = time.perf_counter()
        while any(trial for _, trial in busy.values()):
            for progress in _look(busy, jobs, stack):
                now = time.perf_counter()
                yield progress._replace(seconds=now - before)
                before = now


def _look(busy, jobs, stack):
    """The processes' messages as `Progress`; those that are done get the next job."""
    found = connection.wait([pipe for pipe, (_, trial) in busy.items() if trial], TICK)
    if not found:
        yield Progress()
    for pipe in found:
        process, trial = busy[pipe]
        try:
            env_steps, result, failure = pipe.recv()
        except (EOFError, OSError):
            process.join()
            how = forkserver.how_it_ended(process.exitcode)
            env_steps, result, failure = 0, None, f"its process {how}"
            del busy[pipe]
            pipe, process = _start(stack)
        if result or failure:
            busy[pipe] = process, _give(pipe, jobs)
        result = Result([trial], *result) if result else None
        yield Progress(env_steps, 0.0, result, Failure(trial, failure) if failure else None)


def _start(stack):
    """(this end of its pipe, a process), which end with the stack."""
    here, there = forkserver.context.Pipe()
    process = forkserver.context.Process(target=_run, args=(there, forkserver.jax_settings()))
    with forkserver.signals_held_back(), forkserver.main_module_left_out():
        process.start()
    there.close()

    def end():
        process.kill()  # it holds nothing that can be lost; those it started end with it
        process.join()
        here.close()

    # If nobody closes the stack, it ends before multiprocessing waits for its processes.
    stack.callback(Finalize(None, end, exitpriority=10))
    return here, process


def _give(pipe, jobs):
    """Sends the next job; its trial, or None if no job is left."""
    if not jobs:
        return None
    trial, packed = jobs.pop()
    with contextlib.suppress(BrokenPipeError):  # it died, which its pipe will say
        pipe.send_bytes(packed)
    return trial


def _run(pipe, settings):
    """A process: trains trials. Global random generators are seeded from each trial's seed."""
    forkserver.begin()
    from rljax.utils import preload  # noqa: F401  before anything imports JAX, the job as well

    forkserver.take_over(settings)
    with contextlib.suppress(EOFError, OSError):  # the other end of its pipe is gone
        while True:
            packed = pipe.recv_bytes()
            try:
                _train(pipe, *jax_envs.unpickled(packed))
            except (TrainingError, ValueError, TypeError) as error:
                pipe.send((0, None, errors.text_of(error)))
            except BaseException:  # sys.exit is the trial's failure, and not the process's
                pipe.send((0, None, traceback.format_exc()))


def _train(pipe, trial, how):
    """Trains a trial. Sends environment steps as they come, and at the end (rows of metrics [R, 1],
    mean return of the evaluation [1] or None)."""
    config, keys = trial.config, seeds.keys([trial.seed])
    log_interval = default_log_interval(config)
    forkserver.seed_generators(trial.seed)
    chunks = algorithms.module(trial.algorithm).chunks(config, *trial.own, keys)
    rows, done, state, metrics = {}, 0, None, None
    try:
        for state, metrics in chunks:  # noqa: B007  the last state is evaluated
            updates = int(metrics.updates[0])
            pipe.send(((updates - done) * config.batch_size, None, None))
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
    returns = evaluated(config, state.learner, keys, how) if is_whole else None
    pipe.send((0, (seeds.stack(list(rows.values())), returns), None))
