"""Agents trained in processes, a bounded number at a time: those of A3C, and those in environments
that Python steps. A process takes one agent after another, so that what it compiled serves again.
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

from rljax.envs import host_envs
from rljax.sweep.results import Failure, Progress, Result
from rljax.sweep.trials import Execution, Trial
from rljax.utils import errors, forkserver

TICK = 0.25
"""Seconds between two looks, at most."""


class Job(NamedTuple):
    """What a process is given."""

    agent: Trial
    how: Execution


class _Process(NamedTuple):
    process: Any
    pipe: Any
    """This end of it."""


def usual_parallel(agent: Trial) -> int:
    """How many agents keep all cores busy."""
    config, workers = agent.config, agent.workers
    each = workers.num_workers if workers else 1
    if config.vectorization == "async":
        each = config.num_envs
    return max(1, len(os.sched_getaffinity(0)) // each)


def train(agents: Sequence[Trial], how: Execution) -> Iterator[Progress]:
    """Trains the agents of a group, and evaluates them; closing the generator ends their processes.

    An agent that fails, by an exception or with its process, is told of and left out; the others
    go on.

    Raises:
        TypeError: an environment or network object cannot be sent to a process.
    """
    left = [agent for agent in agents if agent.number not in how.done]
    jobs = [(agent, forkserver.packed(Job(agent, how._replace(done=())))) for agent in left]
    jobs.reverse()  # the next one is taken from the end
    number = min(how.parallel or usual_parallel(agents[0]), len(jobs))
    forkserver.start_server()
    with contextlib.ExitStack() as stack:
        at_work = {}
        for _ in range(number):
            one = _start(stack)
            at_work[one] = _give(one, jobs)
        before = time.perf_counter()
        while any(at_work.values()):
            for progress in _look(at_work, jobs, stack):
                now = time.perf_counter()
                yield progress._replace(seconds=now - before)
                before = now


def _look(at_work, jobs, stack):
    """What the processes have to tell; those that are done get the next job."""
    found = connection.wait([one.pipe for one, agent in at_work.items() if agent], TICK)
    if not found:
        yield Progress()
    for one, agent in list(at_work.items()):
        if one.pipe not in found:
            continue
        try:
            env_steps, metrics, eval_return, failure = one.pipe.recv()
        except (EOFError, OSError):
            one.process.join()
            failure = f"its process {forkserver.how_it_ended(one.process.exitcode)}"
            del at_work[one]
            one = _start(stack)
        if failure is not None:
            at_work[one] = _give(one, jobs)
            yield Progress(failure=Failure(agent, failure))
        elif metrics is None:
            yield Progress(env_steps)
        else:
            at_work[one] = _give(one, jobs)
            returns = None if eval_return is None else np.array([eval_return])
            yield Progress(result=Result([agent], metrics, returns))


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
    """Sends the next job; its agent, or None where there is none left."""
    if not jobs:
        return None
    agent, packed = jobs.pop()
    with contextlib.suppress(BrokenPipeError):  # it died, which its pipe will say
        one.pipe.send_bytes(packed)
    return agent


def _run(pipe, settings: Mapping[str, Any]):
    """A process, from its first line on.

    NumPy's and Python's global generators are seeded from each agent's seed.
    """
    forkserver.begin()
    from rljax.utils import preload  # noqa: F401  before anything imports JAX, the job as well

    forkserver.take_over(settings)
    from rljax import a3c

    with contextlib.suppress(EOFError, OSError):  # the other end of its pipe is gone
        while True:
            packed = pipe.recv_bytes()
            try:
                _train(pipe, pickle.loads(packed))
            except (forkserver.EnvError, a3c.WorkerError, ValueError, TypeError) as error:
                pipe.send((0, None, None, errors.text_of(error)))
            except BaseException:  # sys.exit is the agent's failure, and not the process's
                pipe.send((0, None, None, traceback.format_exc()))


def _train(pipe, job):
    """Trains an agent; sends environment steps as they come, and at the end rows of metrics
    [R, 1]."""
    from rljax import a2c, a3c, evaluation

    config, workers, key = job.agent.config, job.agent.workers, jax.random.key(job.agent.seed)
    forkserver.seed_generators(job.agent.seed)
    if workers is None:
        chunks, is_row = a2c.chunks(config, key[None]), a2c.is_row
    else:
        chunks, is_row = a3c.chunks(config, workers, key), a3c.is_row
    rows, done, metrics = {}, 0, None
    try:
        for state, metrics in chunks:  # noqa: B007  the last state is evaluated
            updates = int(np.max(metrics.updates))
            pipe.send(((updates - done) * config.batch_size, None, None, None))
            done = updates
            if is_row(config, metrics):
                rows[updates] = metrics
    except a3c.WorkerError as error:
        if metrics is None or host_envs.ACTION_NOT_FINITE not in str(error):
            raise
        metrics = metrics._replace(diverged_at=np.int32(max(1, done)))
    is_whole = done == config.num_updates
    if not is_whole:  # environments could not go on with parameters of NaN
        rows[done] = metrics
    learners, eval_return, rows = state.learner, None, list(rows.values())
    if workers is not None:
        learners = jax.tree.map(lambda x: np.asarray(x)[None], learners)
        rows = [jax.tree.map(lambda x: np.asarray(x)[None], row) for row in rows]
    how = job.how
    if how.eval_episodes and is_whole:
        keys = evaluation.evaluation_keys(key[None], config.num_updates)
        played = evaluation.evaluate(
            config,
            learners,
            keys,
            how.eval_episodes,
            how.greedy,
            num_envs=how.eval_envs,
            max_steps=how.eval_max_steps,
        )
        eval_return = float(played.returns.astype(float).mean())
    pipe.send((0, jax.tree.map(lambda *x: np.stack(x), *rows), eval_return, None))
