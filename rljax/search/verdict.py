"""What a search found, judged on fresh seeds."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

from rljax import analysis, presets
from rljax.analysis.statistics import aggregate_mean
from rljax.runs import records
from rljax.search import axes, objectives, training
from rljax.search.brackets import State
from rljax.sweep import points as spaces
from rljax.sweep import results, running
from rljax.sweep.journal import Journal
from rljax.sweep.points import Point
from rljax.sweep.results import num_rows
from rljax.utils import atomic_io, env_settings

BEFORE = -1  # the number of the settings of before among points
NAMES = ("winner", "runner-up", "before")


class Fresh(NamedTuple):
    """Runs with fresh seeds."""

    points: dict[int, Point]  # the winner first, then the runner-up, and the settings of before
    returns: dict[int, np.ndarray]  # [E, S] as in the search
    evaluated: dict[int, np.ndarray]  # [E, S] of full episodes after training, NaN without
    env_steps: int


def chosen(state: State) -> dict[int, Point]:
    """The points that are judged: the best two, and what the base has on the axes."""
    found = {point: state.points[point] for point in state.best()[:2]}
    before = _before(state.asked)
    if axes.MISSING not in before.values() and before not in [*found.values()][:1]:
        found[BEFORE] = before
    return found


def _before(asked):
    """What the base has on each axis."""
    return {name: axes.setting(name, asked.base, asked.own) for name in asked.axes}


def fresh_runs(state: State, folder: Path, note: Callable, signals: Any) -> Fresh | None:
    """Trains the chosen points with seeds that the search has not seen, and evaluates them; None if
    that is not asked for, or none can be trained. Rows go to fresh/results.csv, from which this
    continues."""
    number, options = state.asked.search.fresh_seeds, state.asked.options
    if not number:
        return None
    first = options.seed + options.num_seeds
    asked = state.asked._replace(options=dataclasses.replace(options, seed=first, num_seeds=number))
    points = chosen(state)
    groups = asked.groups(dict(enumerate(points.values())))
    path = folder / "fresh"
    with atomic_io.writing(path):
        path.mkdir(exist_ok=True)
    journal = Journal(path, running.check(groups))
    steps = training.to_the_end(asked, groups, set(journal.trials))
    with contextlib.closing(steps):
        for step in steps:
            note(step)
            if step.result:
                journal.add(step.result, 0.0, 0.0)
            signals.check()
    return _read(asked, groups, path, points) if journal.trials else None


def _read(asked, groups, path, points):
    """From the table, so that what was trained before an interruption counts as well."""
    table, names = results.read(path), list(points)
    configs = {trial.number: trial.config for group in groups for trial in group.trials}
    shape = len(points), len(asked.envs), len(asked.options.seeds)
    returns, evaluated = np.full((2, *shape), np.nan)
    for number, rows in table.groupby("trial"):
        total = num_rows(configs[number])
        found = objectives.of_trials(_Rows(rows), asked.search.objective, total)
        returns[asked.place(number)] = found[0]
        evaluated[asked.place(number)] = rows["eval_return"].iloc[-1]
    env_steps = int(table.groupby("trial")["env_steps"].max().sum())
    return Fresh(points, dict(zip(names, returns)), dict(zip(names, evaluated)), env_steps)


class _Rows:
    """Rows of a table as `Metrics` [R, 1]."""

    def __init__(self, rows):
        self.episodic_return = rows["episodic_return"].to_numpy(float)[:, None]
        self.episodes = rows["episodes"].to_numpy(float)[:, None]
        self.diverged_at = rows["diverged"].to_numpy(int)[:, None]


def of(state: State, fresh: Fresh | None) -> dict:
    """What search.json says of the points, of which some have a return."""
    best, asked = state.best(), state.asked
    roles = dict(zip(best[:2], NAMES)) | {BEFORE: NAMES[2]}
    # Ranks among some runs cannot be compared with ranks among others.
    comparable = len(asked.envs) == 1 or bool(asked.search.references)
    found: dict[str, dict] = {}
    for point in best[:2]:
        share, returns = state.reached[point]
        entry = {"point": point, "settings": state.points[point], "share": share}
        if comparable:
            entry["search"] = _told(state.scores({point: returns})[0])
        found[roles[point]] = entry
    sentences = []
    if fresh is not None:
        scores = dict(zip(fresh.points, state.scores(fresh.returns)))
        for point, values in scores.items():
            entry = found.setdefault(roles[point], {"settings": fresh.points[point]})
            entry["fresh"] = _told(values)
            if len(asked.envs) == 1 and np.isfinite(fresh.evaluated[point]).all():
                entry["evaluated"] = _told(fresh.evaluated[point][0])
            if "search" in entry and entry["share"] == asked.last_share:
                entry["optimism"] = entry["search"]["mean"] - entry["fresh"]["mean"]
        winner, *others = scores
        for other in others:
            names = "the winner", _IN_WORDS[roles[other]]
            pair = scores[winner], scores[other]
            told = analysis.compare(*pair, names, statistic=aggregate_mean).sentence
            sentences.append(told[:1].upper() + told[1:])
        lacking = [name for name, x in _before(asked).items() if x is axes.MISSING]
        if lacking:
            sentences.append(f"The settings of before have no {lacking[0]}: they are not compared.")
    told = {"preset": preset(state, best[0]), "ranking": _ranking(state, best)}
    told |= {"fresh_env_steps": fresh.env_steps if fresh else 0}
    return {"points_judged": found, "sentences": sentences, **told}


_IN_WORDS = {NAMES[1]: "the runner-up", NAMES[2]: "what was set before"}


def _told(scores):
    seeds = len(scores)
    half = float("nan")
    if seeds > 1:
        half = float(stdtrit(seeds - 1, 0.975) * scores.std(ddof=1) / np.sqrt(seeds))
    mean = float(scores.mean())
    return {"mean": mean, "ci95": [mean - half, mean + half], "per_seed": scores.tolist()}


def _ranking(state: State, best: list[int]) -> list[dict]:
    found = []
    for point in best:
        share, returns = state.reached[point]
        means = [
            float(objectives.with_lowest(values, lowest).mean())
            if np.isfinite(values).any()
            else None
            for values, lowest in zip(returns, state.lowest)
        ]
        entry = {"point": point, "settings": state.points[point], "share": share}
        found.append({**entry, "returns": means if len(means) > 1 else means[0]})
    return found


def preset(state: State, point: int) -> str:
    """The winner's settings as an entry of `presets.PRESETS`, with the search as its comment."""
    asked, search = state.asked, state.asked.search
    config, own = spaces.apply(asked.base, asked.own, state.points[point])
    told = " ".join(f"{name}={_axis(axis.values)}" for name, axis in asked.axes.items())
    numbers = f"{len(state.points)} points, {len(asked.options.seeds)} seeds"
    lines = [
        f"# {search.sampler}, {search.scheduler}: {numbers}, {state.env_steps:,} steps:",
        f"# {told}",
    ]
    base = presets.base(asked.options.algorithm)
    names = [n for n in vars(base) if n != "env" and getattr(config, n) != getattr(base, n)]
    values = {n: records.plain(n, getattr(config, n)) for n in names}
    values |= {
        n: dict(x) for n, x in values.items() if n in env_settings.NAMES and type(x) is tuple
    }
    for options in own:
        usual = type(options)()
        values |= {n: x for n, x in vars(options).items() if x != getattr(usual, n)}
    text = ", ".join(f"{name}={value!r}" for name, value in values.items())
    key = asked.options.algorithm
    return "\n".join([*lines, *(f'("{key}", "{env}"): dict({text}),' for env in asked.envs)])


def _axis(values):
    if isinstance(values, spaces.Range):
        return f"{'log' if values.is_log else 'linear'}:{values.low:g}:{values.high:g}"
    return ",".join(map(spaces.label, values))
