"""Agents trained in processes, a bounded number at a time: those of A3C, and those in environments
that Python steps. A process takes one agent after another, so that what it compiled serves again.
"""

import contextlib
import os
import pickle
import signal
import time
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from multiprocessing import connection
from typing import Any, NamedTuple

import jax
import numpy as np

from rljax import processes
from rljax.sweep.agents import Agent
from rljax.sweep.results import Progress, Result

TICK = 0.25
"""Seconds between two looks, at most."""

_JAX_SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
)
"""What a process takes over from this one."""


class FailedError(RuntimeError):
    """An agent could not be trained to its end; which one and why is in the message."""


class Job(NamedTuple):
    """What a process is given."""

    agent: Agent
    eval_episodes: int
    greedy: bool


class _Process(NamedTuple):
    process: Any
    pipe: Any
    """This end of it."""


def usual_parallel(agent: Agent) -> int:
    """How many agents keep all cores busy."""
    config, workers = agent.config, agent.workers
    each = workers.num_workers if workers else 1
    if config.vectorization == "async":
        each = config.num_envs
    return max(1, len(os.sched_getaffinity(0)) // each)


def train(
    agents: Sequence[Agent],
    parallel: int | None,
    eval_episodes: int,
    greedy: bool,
    done: Collection[int] = (),
) -> Iterator[Progress]:
    """Trains the agents of a group, and evaluates them; closing the generator ends their processes.

    Args:
        parallel: processes at a time; by default `usual_parallel`.
        eval_episodes: of each agent after training; 0 is no evaluation.
        done: numbers of agents to leave out.

    Raises:
        TypeError: an environment or network object cannot be sent to a process.
        FailedError: training an agent raised an exception, or its process died.
    """
    left = [agent for agent in agents if agent.number not in done]
    jobs = [(agent, _packed(Job(agent, eval_episodes, greedy))) for agent in left]
    jobs.reverse()  # the next one is taken from the end
    number = min(parallel or usual_parallel(agents[0]), len(jobs))
    processes.start_server()
    with contextlib.ExitStack() as stack:
        at_work = {}
        for _ in range(number):
            one = _start(stack)
            at_work[one] = _give(one, jobs)
        before = time.perf_counter()
        while any(at_work.values()):
            for progress in _look(at_work, jobs):
                now = time.perf_counter()
                yield progress._replace(seconds=now - before)
                before = now


def _look(at_work, jobs):
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
            how = processes.how_it_ended(one.process.exitcode)
            raise FailedError(f"{agent}: its process {how}") from None
        if failure:
            raise FailedError(f"{agent}: {failure}")
        if metrics is None:
            yield Progress(env_steps)
        else:
            at_work[one] = _give(one, jobs)
            returns = None if eval_return is None else np.array([eval_return])
            yield Progress(result=Result([agent], metrics, returns))


def _packed(job):
    try:
        return pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"an environment or network object cannot be sent to other processes ({error});"
            " name it as 'package.module:attribute'"
        ) from error


def _start(stack):
    """A process, which ends with the stack."""
    here, there = processes.context.Pipe()
    settings = {name: getattr(jax.config, name) for name in _JAX_SETTINGS}
    process = processes.context.Process(target=_run, args=(there, settings))
    with processes.signals_held_back(), processes.main_module_left_out():
        process.start()
    there.close()

    def end():
        process.kill()  # it holds nothing that can be lost; those it started end with it
        process.join()
        here.close()

    stack.callback(end)
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
    """A process, from its first line on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, processes.SIGNALS)
    from rljax import preload  # noqa: F401  before anything imports JAX, the job as well

    for name, value in settings.items():
        jax.config.update(name, value)
    processes.end_with_parent()
    with contextlib.suppress(EOFError):
        while True:
            try:
                _train(pipe, pickle.loads(pipe.recv_bytes()))
            except (processes.EnvError, ValueError, TypeError) as error:
                pipe.send((0, None, None, str(error)))
            except EOFError:
                raise
            except Exception:
                pipe.send((0, None, None, traceback.format_exc()))


def _train(pipe, job):
    """Trains an agent; sends environment steps as they come, and at the end rows of metrics
    [R, 1]."""
    from rljax import a2c, a3c, evaluate

    config, workers, key = job.agent.config, job.agent.workers, jax.random.key(job.agent.seed)
    if workers is None:
        chunks, is_row = a2c.chunks(config, key[None]), a2c.is_row
    else:
        chunks, is_row = a3c.chunks(config, workers, key), a3c.is_row
    rows, done = [], 0
    for state, metrics in chunks:  # noqa: B007  the last state is evaluated
        updates = int(np.max(metrics.updates))
        pipe.send(((updates - done) * config.batch_size, None, None, None))
        done = updates
        if is_row(config, metrics):
            rows.append(metrics)
    if done < config.num_updates:  # its environments could not go on with parameters of NaN
        rows.append(metrics)
    learners, eval_return = state.learner, None
    if workers is not None:
        learners = jax.tree.map(lambda x: np.asarray(x)[None], learners)
        rows = [jax.tree.map(lambda x: np.asarray(x)[None], row) for row in rows]
    if job.eval_episodes and done == config.num_updates:
        keys = evaluate.evaluation_keys(key[None], config.num_updates)
        played = evaluate.evaluate(config, learners, keys, job.eval_episodes, job.greedy)
        eval_return = float(played.returns.astype(float).mean())
    pipe.send((0, jax.tree.map(lambda *x: np.stack(x), *rows), eval_return, None))
