"""A whole sweep: groups one after another."""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

from rljax import algorithms, learner, networks, rollout
from rljax.config import Config
from rljax.loggers import tables
from rljax.sweep import population, results, trial_pool
from rljax.sweep.options import SweepOptions
from rljax.sweep.points import Point, Range, grid
from rljax.sweep.results import Progress
from rljax.sweep.trials import Group, Trial, plan
from rljax.utils.errors import TrainingError, reworded


class FailedError(TrainingError):
    """A trial could not be trained to its end; the message says which one and why."""


def run(
    base: Config,
    axes: Mapping[str, Sequence | Range] | Sequence[Point],
    seeds: Iterable[int],
    *,
    algorithm: str = "a2c",
    own: Any = None,
    run_dir: Path | str | None = None,
    join: bool = False,
    **options: Any,
) -> Any:
    """Trains every point with every seed.

    A trial that diverges continues to its end, marked in the table, and affects no other.

    Args:
        base: the settings that no axis changes.
        axes: a grid of values; or points, as from `random` and `latin_hypercube`, or listed.
        algorithm: "a2c", "a3c", "a3c_simulated" or "dqn".
        own: the algorithm's own options, such as a `DQNConfig`; by default its defaults.
        run_dir: the directory for the files that experiments/sweep.py writes; it needs consecutive
            seeds. Without one only the table is kept.
        join: other processes, also on machines that share this directory, call this as well: each
            trains what no other does, and returns when all is finished.
        options: fields of `options.SweepOptions`, such as `eval_episodes` and `max_parallel`. With
            a `coordinator` the others than process 0 return an empty table.

    Returns:
        A `pandas.DataFrame` of `results.columns`: a row for each trial and log point. With a run
        directory, Ctrl-C ends the sweep in order, and the table is of the trials finished so far.

    Raises:
        ValueError, TypeError: as `plan` and `check` do; an option is unknown or wrong.
        FailedError: a trial could not be trained to its end.
    """
    points, seeds = grid(axes) if isinstance(axes, Mapping) else list(axes), list(seeds)
    own = algorithms.find(algorithm).own if own is None else (own,)
    how = SweepOptions(algorithm=algorithm, quiet=run_dir is None)
    how = dataclasses.replace(how, **options).validate()
    if run_dir is None and (join or how.coordinator):
        raise ValueError(f"{'join' if join else 'coordinator'}: needs a run_dir")
    if join and how.coordinator:
        raise ValueError("join: must not be given together with coordinator")
    if run_dir is None:
        groups = plan(base, points, seeds, algorithm, own)
        check(groups)
        with engine(groups, how) as train:
            return _in_memory(groups, how, train)
    if seeds != list(range(seeds[0], seeds[0] + len(seeds))):
        raise ValueError(f"seeds = {seeds}: must be consecutive with a run directory")
    from rljax.sweep import directory, joining

    path, first = Path(run_dir), seeds[0]
    how = dataclasses.replace(how, run_dir=path, seed=first, num_seeds=len(seeds))
    asked = directory.Asked(base, how, own, points, is_joined=join)
    prepared = (joining if join else directory).prepared
    with prepared(directory.resumed(asked) if join else asked) as sweep:
        done = sweep()
    if done.failures:
        raise FailedError(f"{done.failures[0].trial}: {done.failures[0].why}")
    return results.read(path) if done.summary["agents_finished"] else results.frame([])


def _in_memory(groups, how, train):
    tables = []
    with contextlib.closing(train(groups, how)) as steps:
        for step in steps:
            if step.failure:
                raise FailedError(f"{step.failure.trial}: {step.failure.why}")
            if step.result:
                tables.append(results.columns(step.result))
    return results.frame(tables)


def check(groups: Sequence[Group]) -> list[str]:
    """The metrics of all groups' losses, and the columns of their `log_info`. Raises ValueError or
    TypeError, which names the point, if the environment, network or loss of a group cannot be made,
    or a metric has an axis's name."""
    names = {}
    for group in groups:
        trial = group.trials[0]
        try:
            made = partial(_zero_losses, trial)
            found = jax.eval_shape(made, jax.random.key(0))
            for name in found.keys() & trial.settings.keys() - {"loss"}:
                raise ValueError(f"the loss's metric {name!r} must have another name than an axis")
        except (ValueError, TypeError) as error:
            where = f"{trial}: " if trial.settings else ""
            raise reworded(error, f"{where}{error}") from error
        names |= {**found, **dict.fromkeys(tables.info_columns(trial.config.log_info))}
    return list(names)


def _zero_losses(trial, key):
    module, config = algorithms.module(trial.algorithm), trial.config
    if hasattr(module, "row"):
        return module.row(module.init(*trial.in_parts, key)).losses
    env, network = rollout.make_env_and_network(config)
    params = networks.init(config, network, env.spec, key)
    return learner.zero_losses(config, network, env.spec, params)


@contextlib.contextmanager
def engine(groups: Sequence[Group], how: SweepOptions) -> Iterator[Callable]:
    """`chunks`, or what has its arguments and trains on a Ray cluster, to which this connects for
    the block; raises as `cluster.connected` does."""
    if how.engine == "local":
        yield chunks
        return
    from rljax.sweep import ray_tasks
    from rljax.utils import cluster

    with cluster.connected(how.ray_address, 1, "a sweep") as ray:
        yield partial(ray_tasks.chunks, ray)


def chunks(
    groups: Sequence[Group],
    how: SweepOptions,
    done: Collection[int] = (),
    take: Callable[[list[Trial]], list[Trial]] = list,
) -> Iterator[Progress]:
    """Trains all groups, in steps of half a second or so; raises as `trial_pool.train` does. Leaves
    out the trials with numbers in `done`: with environments in JAX that changes no others' bits.
    Before trials are begun, `take` gives those of them that are to be trained."""
    for group in groups:
        first = group.trials[0]
        if any(trial.number not in done for trial in group.trials):
            in_one_program = algorithms.module(first.algorithm).in_one_program(first.config)
            train = population.train if in_one_program else trial_pool.train
            yield from train(group.trials, how, done, take)
