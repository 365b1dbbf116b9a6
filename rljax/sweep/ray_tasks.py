"""Trials trained as tasks of a Ray cluster: batches of a group, one for each core or accelerator,
and the jobs of A3C and of environments that Python steps. A task that is lost with its node is done
again elsewhere, by Ray.
"""

import dataclasses
import itertools
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import cloudpickle

from rljax import algorithms
from rljax.sweep import ray_work
from rljax.sweep.options import SweepOptions
from rljax.sweep.results import Failure, Progress
from rljax.sweep.trials import Group, Trial
from rljax.utils import errors, forkserver, nodes
from rljax.utils.errors import TrainingError

RETRIES = 3  # of a task whose process or node died
TICK = 0.25  # seconds between two looks at the tasks, at most


class Task(NamedTuple):
    """What a task is to do."""

    trials: list[Trial]  # a batch, or one
    how: SweepOptions
    most: int  # trials in a batch; 0: one, in processes
    settings: dict  # JAX's, in the process that started the sweep


def chunks(
    ray: Any, groups: Sequence[Group], how: SweepOptions, done: Collection[int] = ()
) -> Iterator[Progress]:
    """As `running.chunks`, on the cluster to which `ray` is connected. All groups are trained at
    once. Raises TrainingError if a node has other versions."""
    origin, there = nodes.origin(), ray.cluster_resources()
    work, tasks = ray.remote(max_retries=RETRIES)(ray_work.do), {}
    try:
        for task in itertools.chain(*(_tasks(x.trials, how, done, there) for x in groups)):
            packed = forkserver.packed(task, cloudpickle.dumps)
            resources = _resources(ray, task, there)
            tasks[work.options(**resources).remote(origin, packed)] = task
        yield from _results(ray, tasks)
    finally:
        for reference in tasks:
            ray.cancel(reference, force=True)


def _tasks(trials, how, done, there):
    """The tasks of a group. Batches are as large as on one machine with as many devices."""
    from rljax.sweep import programs

    settings, first = forkserver.jax_settings(), trials[0]
    module = algorithms.module(first.algorithm)
    if not module.in_one_program(first.config):
        return [Task([x], how, 0, settings) for x in trials if x.number not in done]
    devices = min(len(trials), max(1, int(there.get(_kind(how, there), 1))))
    if _kind(how, there) == "GPU":
        each = programs.GPU_TRIALS
    else:
        each = programs.usual_cpu_parallel(module, *first.in_parts)
    wanted = how.max_parallel or each * devices
    size = -(-min(wanted, len(trials)) // devices)
    how = dataclasses.replace(how, max_parallel=size)
    batches = [trials[start : start + size] for start in range(0, len(trials), size)]
    left = [[x for x in batch if x.number not in done] for batch in batches]
    return [Task(batch, how, size, settings) for batch in left if batch]


def _kind(how, there):
    return "GPU" if how.device != "cpu" and there.get("GPU") else "CPU"


def _resources(ray, task, there):
    """What a task needs of a node, and at most what one has."""
    if task.most:
        return {"num_gpus": 1} if _kind(task.how, there) == "GPU" else {"num_cpus": 1}
    trial = task.trials[0]
    needed = max([getattr(options, "num_workers", 1) for options in trial.own], default=1)
    if trial.config.vectorization == "async":
        needed = trial.config.env_processes or trial.config.num_envs
    largest = max(node["Resources"].get("CPU", 1) for node in ray.nodes() if node["Alive"])
    return {"num_cpus": min(needed, int(largest))}


def _results(ray, tasks):
    """The progress of tasks as they end."""
    before = time.perf_counter()
    while tasks:
        ended, _ = ray.wait(list(tasks), num_returns=1, timeout=TICK)
        if not ended:
            yield Progress()
        for reference in ended:
            task = tasks.pop(reference)
            for progress in _result(ray, reference, task):
                now = time.perf_counter()
                yield progress._replace(seconds=now - before)
                before = now


def _result(ray, reference, task):
    by_number = {trial.number: trial for trial in task.trials}
    try:
        wrong, steps = ray.get(reference)
    except ray.exceptions.RayError as error:
        why = f"its task failed {RETRIES + 1} times: {errors.in_a_line(error)}"
        return [Progress(failure=Failure(trial, why)) for trial in task.trials]
    if wrong:
        raise TrainingError(f"{task.trials[0]}: {wrong}")
    found = []
    for step, numbers in steps:
        trials = [by_number[number] for number in numbers]
        if step.result:
            step = step._replace(result=step.result._replace(trials=trials))
        if step.failure:
            step = step._replace(failure=Failure(trials[0], step.failure))
        found.append(step)
    return found
