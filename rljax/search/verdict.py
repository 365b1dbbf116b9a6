"""What a search found, judged on fresh seeds."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax import analysis
from rljax.analysis.statistics import aggregate_mean
from rljax.config import Config
from rljax.search import axes, objectives, training
from rljax.search.brackets import State
from rljax.search.training import num_rows
from rljax.sweep import results, running
from rljax.sweep.journal import Journal
from rljax.sweep.points import Point, describe

BEFORE = -1  # the number of the settings of before among points
NAMES = ("winner", "runner-up", "before")


class Fresh(NamedTuple):
    """Runs with fresh seeds."""

    points: dict[int, Point]  # the winner first, then the runner-up, and the settings of before
    returns: dict[int, np.ndarray]  # [E, S] as in the search
    evaluated: dict[int, np.ndarray]  # [E, S] of full episodes after training, NaN without


def chosen(state: State) -> dict[int, Point]:
    """The points that are judged: the best two, and what the base has on the axes."""
    found = {point: state.points[point] for point in state.best()[:2]}
    asked = state.asked
    before = {name: axes.setting(name, asked.base, asked.own) for name in asked.axes}
    if None not in before.values() and before not in [*found.values()][:1]:
        found[BEFORE] = before
    return found


def fresh_runs(state: State, folder: Path, note: Callable, signals: Any) -> Fresh | None:
    """Trains the chosen points with seeds that the search has not seen, and evaluates them; None if
    that is not asked for, or none can be trained. Rows go to fresh/results.csv, from which this
    continues."""
    asked, number = state.asked, state.asked.search.fresh_seeds
    if not number or not state.reached:
        return None
    options = asked.options
    first = options.seed + options.num_seeds
    fresh = asked._replace(options=dataclasses.replace(options, seed=first, num_seeds=number))
    points = chosen(state)
    places = dict(enumerate(points.values()))
    names = dict(enumerate(points))
    groups = fresh.groups(places)
    path = folder / "fresh"
    path.mkdir(exist_ok=True)
    journal = Journal(path, running.check(groups))
    shape = len(asked.envs), number
    returns = {point: np.full(shape, np.nan) for point in points}
    evaluated = {point: np.full(shape, np.nan) for point in points}
    most = state.most_trials
    steps = training.to_the_end(fresh, groups, set(journal.trials), most)
    with contextlib.closing(steps):
        for step in steps:
            note(step)
            if step.result:
                journal.add(step.result, 0.0, 0.0)
            signals.check()
    if not journal.trials:
        return None
    _read(fresh, groups, path, names, returns, evaluated)
    return Fresh(points, returns, evaluated)


def _read(fresh, groups, path, names, returns, evaluated):
    """Takes returns from the table, so that those trained before an interruption count as well."""
    table = results.read(path)
    configs = {trial.number: trial.config for group in groups for trial in group.trials}
    for number, rows in table.groupby("trial"):
        point, env, seed = fresh.place(number)
        metrics = _Rows(rows)
        total = num_rows(configs[number])
        returns[names[point]][env, seed] = objectives.of_trials(
            metrics, fresh.search.objective, total
        )[0]
        evaluated[names[point]][env, seed] = rows["eval_return"].iloc[-1]


class _Rows:
    """Rows of a table as `Metrics` [R, 1]."""

    def __init__(self, rows):
        self.episodic_return = rows["episodic_return"].to_numpy(float)[:, None]
        self.episodes = rows["episodes"].to_numpy(float)[:, None]
        self.diverged_at = rows["diverged"].to_numpy(int)[:, None]


def of(state: State, fresh: Fresh | None) -> dict:
    """What search.json says of the points."""
    best = state.best()
    if not best:
        return {"winner": None, "sentences": ["No point was trained."]}
    told = {"preset": preset(state, best[0]), "ranking": _ranking(state, best)}
    roles = dict(zip(best[:2], NAMES)) | {BEFORE: NAMES[2]}
    in_search = state.scores({p: state.reached[p][1] for p in best[:2]}) if best[:2] else []
    found = {
        roles[point]: {"point": point, "settings": state.points[point], "search": _told(scores)}
        for point, scores in zip(best[:2], in_search)
    }
    sentences = []
    if fresh is not None:
        scores = dict(zip(fresh.points, state.scores(fresh.returns)))
        for point, values in scores.items():
            entry = found.setdefault(roles[point], {"settings": fresh.points[point]})
            entry["fresh"] = _told(values)
            if len(state.asked.envs) == 1 and np.isfinite(fresh.evaluated[point]).all():
                entry["evaluated"] = _told(fresh.evaluated[point][0])
            if "search" in entry and len(state.asked.envs) == 1:
                entry["optimism"] = entry["search"]["mean"] - entry["fresh"]["mean"]
        winner, *others = scores
        for other in others:
            names = f"the {roles[winner]}", _IN_WORDS[roles[other]]
            with np.errstate(invalid="ignore"):
                pair = scores[winner], scores[other]
                compared = analysis.compare(*pair, names, statistic=aggregate_mean)
            sentences.append(compared.sentence[:1].upper() + compared.sentence[1:])
    return {"points_judged": found, "sentences": sentences, **told}


_IN_WORDS = {"runner-up": "the runner-up", "before": "what was set before"}


def _told(scores):
    from scipy.special import stdtrit

    seeds = len(scores)
    half = float("nan")
    if seeds > 1:
        half = float(stdtrit(seeds - 1, 0.975) * scores.std(ddof=1) / np.sqrt(seeds))
    mean = float(scores.mean())
    return {"mean": mean, "ci95": [mean - half, mean + half], "per_seed": scores.tolist()}


def _ranking(state: State, best: list[int]) -> list[dict]:
    several = len(state.asked.envs) > 1
    found = []
    for point in best:
        share, returns = state.reached[point]
        known = objectives.with_lowest(returns)
        entry = {"point": point, "settings": state.points[point], "share": share}
        entry["returns"] = known.mean(axis=1).tolist() if several else float(known.mean())
        found.append(entry)
    return found


def preset(state: State, point: int) -> str:
    """The winner's settings as an entry of `presets.PRESETS`, with the search as its comment."""
    asked, search = state.asked, state.asked.search
    config, own = asked.base, asked.own
    axes_told = " ".join(f"{name}={_axis(axis)}" for name, axis in asked.axes.items())
    lines = [
        f"# {search.sampler}, {search.scheduler}: {len(state.points)} points,"
        f" {len(asked.options.seeds)} seeds, {state.env_steps:,} steps: {axes_told}"
    ]
    values = _changed(config, own) | state.points[point]
    text = ", ".join(f"{name}={value!r}" for name, value in values.items() if "." not in name)
    for env in asked.envs:
        lines.append(f'("{asked.options.algorithm}", "{env}"): dict({text}),')
    return "\n".join(lines)


def _changed(config: Config, own: Any) -> dict:
    """The settings of the base that are not the defaults, but for the environment."""
    del own
    plain = Config()
    return {
        name: getattr(config, name)
        for name in Config.__dataclass_fields__
        if name != "env" and getattr(config, name) != getattr(plain, name)
    }


def _axis(axis):
    from rljax.sweep.points import Range, label

    if isinstance(axis.values, Range):
        return (
            f"{'log' if axis.values.is_log else 'linear'}:{axis.values.low:g}:{axis.values.high:g}"
        )
    return ",".join(map(label, axis.values))


def settings_in_words(point: Mapping) -> str:
    return describe(dict(point))
