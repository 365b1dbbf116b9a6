"""The loop of a run: follows the chunks of an algorithm; logs, evaluates, saves, stops in order."""

import contextlib
import dataclasses
import warnings
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from rljax import algorithms
from rljax.config import at_row_end
from rljax.loggers import tables
from rljax.loggers.display import Display
from rljax.runs import best, run
from rljax.runs.clock import Clock
from rljax.runs.interrupts import Interrupts
from rljax.runs.recorder import Recorder
from rljax.runs.records import config_record
from rljax.runs.settings import Settings
from rljax.runs.start import Training
from rljax.utils import forkserver, hosts, seeds, sharding
from rljax.utils.errors import TrainingError


class LogRow(NamedTuple):
    """What `on_log` is called with, at the end of a row of metrics."""

    metrics: list[dict]  # of each seed that has a row, as metrics.csv has it
    states: Any  # [S] the algorithm's states; an accelerator deletes them in the next chunk


@dataclasses.dataclass(frozen=True)
class Plan:
    """What stays fixed while a run trains."""

    asked: Settings
    module: ModuleType  # of the algorithm
    keys: Any  # [S] the keys that the seeds' runs start from
    together: bool  # all seeds are trained in one program, else one after another
    device: str
    on_log: Callable[[LogRow], Any] | None
    interrupts: Interrupts
    begun: float  # time.perf_counter() at the start, less the seconds of the run that is resumed
    making: float  # time.perf_counter() when the states began to be made
    display: Display | None = None  # this and the next while it trains
    recorder: Recorder | None = None


def train(plan: Plan, now: Training, clock: Clock) -> None:
    """Trains to the end, or until the run diverges, fails, stops or a signal comes. Raises
    RefusedError if a process cannot make the environment, before anything has been trained."""
    try:
        _follow(plan, now, clock)
        hosts.finished()
    except KeyboardInterrupt:
        now.status = "interrupted"
        if plan.interrupts.received:  # as all have; a second signal is of this process alone
            hosts.finished()
        _drop_deleted(now)
    except forkserver.RefusedError as error:
        if not now.updates.any():
            raise
        now.status, now.error = "failed", error
    except TrainingError as error:
        now.status, now.error = "failed", error
        _drop_deleted(now)
        if now.states is not None:
            _save(plan, now)
    plan.recorder.wait()


def _drop_deleted(now):
    """Forgets states that an accelerator has deleted in a chunk that did not end."""
    if sharding.is_deleted(now.states):
        now.states = None


def _follow(plan, now, clock):
    if not now.updates.any():
        _save(plan, now)
        plan.recorder.wait()  # so that a run that has rows has a checkpoint
    elif _evaluate_if_due(plan, now, _at_row_end(plan, now)):  # a signal had put it off
        _save(plan, now)
    plan.interrupts.check()  # it may have come in an evaluation
    settings = (plan.asked.config, *plan.asked.own, None, now.states)
    options = plan.asked.options
    how = dict(log_interval=options.log_interval, watch=partial(_watch, plan))
    if len(algorithms.find(plan.asked.algorithm).engines) > 1:
        how |= dict(engine=options.engine, ray_address=options.ray_address)
    with contextlib.closing(plan.module.chunks(*settings, **how)) as chunks:
        for states, metrics in chunks:
            if _take(plan, now, clock, states, metrics):
                return
            plan.recorder.check()
            plan.interrupts.check()
    if now.diverged:  # between two rows, where environments could not continue
        now.status = "diverged"


def _take(plan, now, clock, states, metrics):
    """Records a chunk; returns whether the run ends."""
    plan.interrupts.agree()
    config = plan.asked.config
    left = np.flatnonzero(now.updates < config.num_updates)
    in_training = left.tolist() if plan.together else left[:1].tolist()
    updates = np.array(metrics.updates)
    advanced = np.flatnonzero(updates > now.updates)
    clock.lap(int((updates - now.updates).sum()) * config.batch_size, in_training)
    now.states, now.updates, now.evaluation = states, updates, None
    reached = metrics.episodes[advanced] > 0
    if reached.any():
        now.progress.last_return = float(metrics.episodic_return[advanced][reached].mean())
        now.progress.last_info = {
            name: float(metrics.info[advanced][reached, i].mean())
            for i, name in enumerate(config.log_info)
        }
    seed_of = plan.asked.options.seeds
    now.diverged = {seed_of[i]: int(n) for i, n in enumerate(metrics.diverged_at) if n}
    ended = np.intersect1d(advanced, _at_row_end(plan, now))

    def rows(which):
        times = now.progress.wall_seconds, clock.speed / max(1, len(advanced))
        how = config.batch_size, *times, config.log_info
        return tables.metrics_rows(metrics, which, seed_of, *how)

    stops = False
    if len(ended):
        stops = _end_row(plan, now, clock, ended, rows(ended))
    elif plan.interrupts.received:
        if not now.diverged and _env_steps(plan, now) != now.saved:
            _save(plan, now)  # before the row, for it belongs to whole rows alone
        if len(advanced):
            _log(plan, now, rows(advanced), are_whole=False)
    _show(plan, now, clock)
    return stops


def _end_row(plan, now, clock, ended, rows):
    """Logs the rows that ended, evaluates and saves where due; returns whether the run ends."""
    for index, row in zip(ended, rows):
        now.last_returns[index] = row["episodic_return"]
    stops = _log(plan, now, rows)
    clock.begin_row()
    if now.diverged:  # the checkpoint before stays the newest
        now.status = "diverged"
        return True
    wanted = plan.asked.options.stop_at_return
    if stops or (wanted is not None and now.last_returns.mean() >= wanted):
        now.status = "stopped"
    elif not plan.interrupts.received:
        is_evaluated = _evaluate_if_due(plan, now, ended)
        if _render_if_due(plan, now, ended) or is_evaluated:
            clock.pause()
    is_stopped = now.status == "stopped"
    if is_stopped or plan.interrupts.received or _is_save_due(plan, now, ended):
        _save(plan, now)
    return is_stopped


def _log(plan, now, rows, are_whole=True):
    """Writes rows and gives them to `on_log`; returns whether that says "stop"."""
    plan.recorder.add_rows(rows, are_whole)
    try:
        return plan.on_log is not None and plan.on_log(LogRow(rows, now.states)) == "stop"
    except BaseException:  # a KeyboardInterrupt too, which a notebook can raise in it
        if not now.diverged and _env_steps(plan, now) != now.saved:
            _save(plan, now)
        raise


def _evaluate_if_due(plan, now, ended):
    """Evaluates the seeds at the end of a row that have passed a multiple of `eval_every` since
    their last evaluation, or are at their end; whether there were any. A signal puts it off to the
    next start."""
    config, every = plan.asked.config, plan.asked.options.eval_every
    if not every:
        return False
    steps, before = now.updates * config.batch_size, np.array(now.progress.evaluated)
    due = (steps // every > before // every) | (now.updates == config.num_updates)
    which = np.intersect1d(ended, np.flatnonzero(due & (steps != before)))
    if not len(which):
        return False
    try:
        evaluation = evaluate(plan, now, which)
    except KeyboardInterrupt:
        if plan.interrupts.received:
            return False
        raise
    returns, seed_of = evaluation.returns, plan.asked.options.seeds
    measured = zip(which, returns, run.info_means(evaluation))
    rows = [(seed_of[i], steps[i], now.updates[i], row, *info) for i, row, info in measured]
    plan.recorder.add_evaluations(rows, config.log_info)
    now.evaluation = evaluation if len(which) == len(steps) else None
    now.best = best.updated(now.best, now.states.learner, which, returns.mean(axis=1), steps[which])
    for i in which:
        now.progress.evaluated[i] = int(steps[i])
    return True


def _render_if_due(plan, now, ended):
    """Draws an episode of a seed at the end of a row that has passed a multiple of `render_every`;
    whether it was due. An environment that cannot be played again is a warning."""
    options, config, index = plan.asked.options, plan.asked.config, int(ended[0])
    steps, every = int(now.updates[index]) * config.batch_size, options.render_every
    if not every or steps // every == (steps - options.log_interval * config.batch_size) // every:
        return False
    from rljax import evaluation, watch

    plan.display.phase("drawing")
    seed, learner = options.seeds[index], seeds.take(now.states.learner, index)
    key = evaluation.evaluation_keys(plan.keys[index : index + 1], now.updates[index])[0]
    how = options.eval_mode == "greedy", min(options.eval_max_steps, watch.MOST_STEPS)
    try:
        played = watch.episodes(config, learner, key, 1, *how)
        folder = options.run_dir / "videos"
        folder.mkdir(exist_ok=True)
        path = folder / f"seed_{seed}_{steps:012d}.gif"
        watch.write(path, watch.drawn(config.env, played), watch.FPS)
    except (TrainingError, ValueError) as error:
        warnings.warn(f"no video after {steps:,} steps: {error}", stacklevel=2)
    return True


def evaluate(plan: Plan, now: Training, which: np.ndarray) -> Any:
    """The `Evaluation` [K, N] of the seeds with these indices [K]."""
    from rljax import evaluation

    options = plan.asked.options
    learners, keys = now.states.learner, plan.keys
    if len(which) < len(now.updates):
        learners, keys = seeds.take((learners, keys), which)

    def watch(ended, episodes, steps):
        plan.interrupts.check()
        plan.display.evaluating(ended, episodes, steps)

    keys = evaluation.evaluation_keys(keys, now.updates[which])
    how = dict(num_envs=options.eval_envs, max_steps=options.eval_max_steps, watch=watch)
    policies, greedy = (plan.asked.config, learners, keys), options.eval_mode == "greedy"
    return evaluation.evaluate(*policies, options.eval_episodes, greedy, **how)


def _at_row_end(plan, now):
    """Indices of the seeds that are at the end of a row."""
    interval, config = plan.asked.options.log_interval, plan.asked.config
    return [i for i, n in enumerate(now.updates) if n and at_row_end(config, int(n), interval)]


def _env_steps(plan, now):
    """The steps that name a checkpoint: of each seed, or of all that train one after another."""
    updates = now.updates[0] if plan.together else now.updates.sum()
    return int(updates) * plan.asked.config.batch_size


def _is_save_due(plan, now, ended):
    config, every = plan.asked.config, plan.asked.options.checkpoint_every
    every = config.total_timesteps // 10 if every is None else every
    at_end = (now.updates[ended] == config.num_updates).any()
    return at_end or (every > 0 and _env_steps(plan, now) // every > now.saved // every)


def _save(plan, now):
    """Saves a checkpoint."""
    trees, env_steps = {"state": now.states}, _env_steps(plan, now)
    in_training = now.updates[now.updates < plan.asked.config.num_updates]
    facts = {
        "algorithm": plan.asked.algorithm,
        "config": config_record(plan.asked.config),
        "seeds": plan.asked.options.seeds,
        "env_steps": env_steps,
        "updates": int(in_training.max(initial=0) or now.updates.max()),
        "progress": dataclasses.asdict(now.progress),
    }
    if now.best:
        trees["best"] = {"learner": now.best.learner}
        facts["best"] = {name: getattr(now.best, name) for name in ("env_steps", "returns")}
    plan.recorder.save(env_steps, trees, facts)
    now.saved = env_steps


def _show(plan, now, clock):
    mean, info = now.progress.last_return, now.progress.last_info
    shown = {} if mean is None else {"return": mean, **info}
    plan.display.update(int(now.updates.sum()) * plan.asked.config.batch_size, clock.speed, shown)


def _watch(plan, status):
    seed_of = plan.asked.options.seeds
    label = f"seed {seed_of[status.index]}" if len(seed_of) > 1 else ""
    plan.display.watch(label, status)
