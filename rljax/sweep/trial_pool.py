"""Trials trained in processes, a bounded number at a time: those of A3C, and those in environments
that Python steps. A process takes one trial after another, so that what it compiled serves again.
"""

import contextlib
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from multiprocessing import connection
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

import cloudpickle
import jax
import numpy as np

from rljax import algorithms
from rljax.config import at_row_end, default_log_interval
from rljax.envs import host_envs, jax_envs
from rljax.sweep import results
from rljax.sweep.options import SweepOptions
from rljax.sweep.results import Failure, Held, Progress, Result, evaluated
from rljax.sweep.trials import Trial
from rljax.utils import errors, forkserver, platform, pytrees, seeds
from rljax.utils.errors import TrainingError

TICK = 0.25  # seconds between two looks at the processes, at most


def usual_parallel(trial: Trial) -> int:
    """How many trials keep all cores busy."""
    each = max([getattr(options, "num_workers", 1) for options in trial.own], default=1)
    if trial.config.vectorization == "async":
        each = min(trial.config.env_processes or platform.cores(), trial.config.num_envs)
    return max(1, platform.cores() // each)


class Job(NamedTuple):
    """What a process is to do with a trial."""

    trial: Trial
    rows: int | None = None  # of metrics, at which it pauses; None: it ends, and is evaluated
    held: Held | None = None  # what it continues with


def train(
    trials: Sequence[Trial],
    how: SweepOptions,
    done: Collection[int] = (),
    take: Callable[[list[Trial]], list[Trial]] = list,
) -> Iterator[Progress]:
    """Trains the trials of a group, and evaluates them; closing the generator ends their processes.
    `take` is called with each trial right before it, and gives it back if it is to be trained.

    A trial that fails, by an exception or with its process, is reported and left out; the others
    continue. Raises TypeError if an environment, network or loss cannot be sent to a process.
    """
    left = [trial for trial in reversed(trials) if trial.number not in done]
    number = min(how.max_parallel or usual_parallel(trials[0]), len(left))

    def next_job():
        while left:
            for trial in take([left.pop()]):
                return Job(trial)
        return None

    yield from serve(next_job, how, number)


def serve(next_job: Callable[[], Job | None], how: SweepOptions, number: int) -> Iterator[Progress]:
    """Has a number of processes do jobs, as `train` does, until there are none.

    Args:
        next_job: called when a process is free, and again after each step while it stays so: a
            job, or None if there is none now.
    """
    forkserver.start_server()
    with contextlib.ExitStack() as stack:
        busy = {}  # this end of a process's pipe: the process and its trial, if it has one
        for _ in range(number):
            pipe, process = _start(stack)
            busy[pipe] = process, None
        before = time.perf_counter()
        while _give(busy, next_job, how):
            for progress in _look(busy, stack):
                now = time.perf_counter()
                yield progress._replace(seconds=now - before)
                before = now


def _give(busy, next_job, how):
    """Gives those that are free a job each; whether any has one."""
    for pipe, (process, trial) in busy.items():
        if trial is None and (job := next_job()):
            packed = forkserver.packed((job, how), cloudpickle.dumps)
            with contextlib.suppress(BrokenPipeError):  # it died, which its pipe will say
                pipe.send_bytes(packed)
            busy[pipe] = process, job.trial
    return any(trial for _, trial in busy.values())


def _look(busy, stack):
    """The processes' messages as `Progress`."""
    found = connection.wait([pipe for pipe, (_, trial) in busy.items() if trial], TICK)
    if not found:
        yield Progress()
    for pipe in found:
        process, trial = busy[pipe]
        try:
            progress = pipe.recv()
        except (EOFError, OSError):
            process.join()
            how = forkserver.how_it_ended(process.exitcode)
            progress = Progress(failure=f"its process {how}")
            del busy[pipe]
            pipe, process = _start(stack)
        is_done = progress.result or progress.held or progress.failure
        busy[pipe] = process, None if is_done else trial
        if progress.result:
            progress = progress._replace(result=progress.result._replace(trials=[trial]))
        if progress.held:
            progress = progress._replace(held=progress.held._replace(trials=[trial]))
        if progress.failure:
            progress = progress._replace(failure=Failure(trial, progress.failure))
        yield progress


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


def states_of(held: Held) -> Any:
    """The states [A] with which trials paused."""
    return pytrees.with_keys(held.states, held.keys)


def _run(pipe, settings):
    """A process: trains trials. Global random generators are seeded from each trial's seed."""
    forkserver.begin()
    from rljax.utils import preload  # noqa: F401  before anything imports JAX, the job as well

    forkserver.take_over(settings)
    with contextlib.suppress(EOFError, OSError):  # the other end of its pipe is gone
        while True:
            packed = pipe.recv_bytes()
            with failure_sent(pipe.send):
                train_one(pipe.send, *jax_envs.unpickled(packed))


@contextlib.contextmanager
def failure_sent(send: Callable[[Progress], None]) -> Iterator[None]:
    """In the block whatever is raised is sent, as the trial's failure."""
    try:
        yield
    except (TrainingError, ValueError, TypeError) as error:
        send(Progress(failure=errors.text_of(error)))
    except BaseException:  # sys.exit is the trial's failure, and not the process's
        send(Progress(failure=traceback.format_exc()))


def train_one(send: Callable[[Progress], None], job: Job, how: SweepOptions) -> None:
    """Does a job, in this process. Sends environment steps as they come, and at the end its result,
    or what it holds where it pauses; trials are known to the other end."""
    trial, config, keys = job.trial, job.trial.config, seeds.keys([job.trial.seed])
    log_interval, end = default_log_interval(config), config.num_updates
    until = end if job.rows is None else results.updates_at(config, job.rows)
    forkserver.seed_generators(trial.seed)
    before = [] if job.held is None else [job.held.metrics]
    states = job.held and states_of(job.held)
    chunks = algorithms.module(trial.algorithm).chunks(config, *trial.own, keys, states)
    rows, state, metrics = {}, None, None
    done = sum(int(part.updates[-1, 0]) for part in before)
    try:
        with contextlib.closing(chunks):
            for state, metrics in chunks:  # noqa: B007  the last state is evaluated
                updates = int(metrics.updates[0])
                send(Progress((updates - done) * config.batch_size))
                if updates > done and at_row_end(config, updates, log_interval):
                    rows[updates] = metrics
                done = updates
                if done >= until:
                    break
    except TrainingError as error:
        if metrics is None or host_envs.ACTION_NOT_FINITE not in str(error):
            raise
        metrics = metrics._replace(diverged_at=np.array([max(1, done)], np.int32))
    is_whole = done >= until
    if not is_whole:  # environments could not continue with parameters of NaN
        rows[done] = metrics
    rows = seeds.stack(list(rows.values()))
    if job.rows is not None:
        rows = jax.tree.map(lambda *x: np.concatenate(x), *before, rows)
        short = job.rows - len(rows.updates)  # of one that diverged
        rows = jax.tree.map(lambda x: np.concatenate([x, x[-1:].repeat(short, 0)]), rows)
        send(Progress(held=Held([], *pytrees.without_keys(state), rows)))
        return
    returns = evaluated(config, state.learner, keys, how) if is_whole else None
    send(Progress(result=Result([], rows, returns)))
