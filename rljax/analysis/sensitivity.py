"""Which settings matter, and how much a method depends on tuning, from tidy tables of sweeps and
searches.
"""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rljax.analysis import tidy
from rljax.utils import imports

FEWEST_POINTS = 8  # from which a forest says something
NEARLY = 0.95  # of the score of tuning for each environment: as good
TREES, DEPTH = 64, 64


def at_same_length(table: Mapping[str, np.ndarray], fewest: int = 1) -> Any:
    """A table cut at one length: trials of a search end at different ones, at which returns cannot
    be compared. It is the shortest after which most trials have a return and points differ, of
    which there are at least this number; trials that ended before it are left out."""
    import pandas as pd

    rows = pd.DataFrame({name: np.asarray(table[name]) for name in table})
    lengths = rows.groupby("trial")["env_steps"].transform("max")
    for length in sorted(lengths.unique()):
        found = rows[(lengths >= length) & (rows["env_steps"] <= length)]
        if found["point"].nunique() < fewest:
            break
        finals = tidy.final_returns(found)
        has_return = finals["final_return"].notna().mean() > 0.5
        if has_return and finals.groupby("point")["final_return"].mean().nunique() > 1:
            return found
    return rows[rows["env_steps"] <= lengths.min()]


def importance(table: Mapping[str, np.ndarray], seed: int = 0) -> dict[str, float]:
    """The share of the variance between points that each axis explains alone, summing to 1, the
    largest first: the functional ANOVA of a random forest (Hutter, Hoos and Leyton-Brown 2014), as
    Optuna has it. Points are scored by the mean of their final returns, in several environments of
    their ranks, at one length of training, see `at_same_length`.

    Raises:
        ValueError: a package is missing, or there are fewer than 8 points, or one axis alone does
            not vary.
    """
    optuna = imports.optuna("importance")
    imports.check_installed("importance", "search", "sklearn")  # Optuna asks for it
    finals = tidy.counted(at_same_length(table, FEWEST_POINTS))
    names = [n for n in tidy.axes(table) if n != "env" and finals[n].nunique() > 1]
    if not names:
        raise ValueError("importance: no axis has several values")
    if "env" in finals:
        finals["final_return"] = finals.groupby("env")["final_return"].rank(pct=True)
    scores = finals.groupby("point").agg({**dict.fromkeys(names, "first"), "final_return": "mean"})
    if len(scores) < FEWEST_POINTS:
        raise ValueError(f"importance: {len(scores)} points: must be at least {FEWEST_POINTS}")
    if scores["final_return"].isna().any() or scores["final_return"].nunique() == 1:
        raise ValueError("importance: all points have the same score, or one has none")
    found = _forest(optuna, scores, names, seed)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _forest(optuna, scores, names, seed):
    kinds = optuna.distributions
    space = {}
    for name in names:
        column = scores[name]
        if column.dtype.kind in "if" and column.nunique() > 2:
            low, high = float(column.min()), float(column.max())
            is_log = low > 0 and high / low >= 10  # as its range was, most likely
            space[name] = kinds.FloatDistribution(low, high, log=is_log)
        else:
            space[name] = kinds.CategoricalDistribution([*column.unique().tolist()])
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize")
        for row in scores.to_dict("records"):
            params = {n: float(row[n]) if _is_float(space[n]) else row[n] for n in names}
            study.add_trial(
                optuna.trial.create_trial(
                    params=params, distributions=space, value=row["final_return"]
                )
            )
        evaluator = optuna.importance.FanovaImportanceEvaluator(
            n_trees=TREES, max_depth=DEPTH, seed=seed
        )
        return optuna.importance.get_param_importances(study, evaluator=evaluator)
    finally:
        optuna.logging.set_verbosity(before)


def _is_float(distribution):
    return type(distribution).__name__ == "FloatDistribution"


class Sensitivity(NamedTuple):
    """How much a method depends on tuning."""

    tuned: float  # the mean over environments of the best point of each
    fixed: float  # the mean over environments of the one point that is best for all
    sensitivity: float  # the difference: what is lost without tuning for each environment
    dimensionality: int | None
    """The fewest axes that must be tuned for each environment, while the others stay at the values
    of the fixed point, for 0.95 of `tuned`. Only grids tell; None of other tables."""


def sensitivity(table: Mapping[str, np.ndarray]) -> Sensitivity:
    """The sensitivity of a method to its settings, and their effective dimensionality (Adkins,
    Bowling and White 2024, arXiv 2412.07165), from a sweep over settings and environments.

    Of point h in environment e let p(h, e) be the mean final return over seeds, where the shortest
    trial ended, and G(h, e) the same on the scale on which the 5th percentile of the environment's
    points is 0 and the 95th is 1, cut off at both. Then

        sensitivity = mean_e max_h G(h, e) - max_h mean_e G(h, e)

    It is 0 in a single environment. Of several methods, join their tables first if the percentiles
    are to be of all of them, and give the rows of one at a time: see `plot_sensitivity_plane`.

    Raises:
        ValueError: an environment lacks a point that another one has, or no run has a return.
    """
    return _of_scores(*_scaled({"": table})[""])


def _scaled(tables):
    """{label: ([H, E] scores, the points [H] as dicts of their axes)}, on common scales."""
    import pandas as pd

    parts = [at_same_length(table).assign(method=label) for label, table in tables.items()]
    parts = [tidy.counted(part, "method") for part in parts]
    finals = pd.concat(parts, ignore_index=True)
    if "env" not in finals:
        finals["env"] = ""
    if finals["final_return"].isna().any():
        raise ValueError("no run of an environment has a final return")
    found = {}
    for label, rows in finals.groupby("method"):
        names = [n for n in tidy.axes(tables[label]) if n != "env"]
        # Where environments are an axis, each point has one: what the others share is a setting.
        key = rows[names].astype(str).agg("|".join, axis=1) if names else rows["method"]
        means = rows.groupby([key.rename("setting"), "env"])["final_return"].mean().unstack("env")
        if means.isna().any(axis=None):
            raise ValueError("every setting must have runs in every environment")
        firsts = rows.groupby(key.rename("setting"))[names].first().loc[means.index]
        found[label] = means, firsts.to_dict("records")
    every = pd.concat([means for means, _ in found.values()])
    low, high = every.quantile(0.05), every.quantile(0.95)
    width = (high - low).replace(0, 1)
    return {
        label: (((means - low) / width).clip(0, 1).to_numpy(), points)
        for label, (means, points) in found.items()
    }


def _of_scores(scores, points):
    tuned, means = scores.max(axis=0).mean(), scores.mean(axis=1)
    fixed = points[int(means.argmax())]
    apart = float(tuned - means.max())
    return Sensitivity(
        float(tuned), float(means.max()), apart, _dimensionality(scores, points, fixed)
    )


def _dimensionality(scores, points, fixed):
    names = [*fixed]
    sizes = [len({repr(point[name]) for point in points}) for name in names]
    if not names or np.prod(sizes) != len(points):
        return None
    wanted = NEARLY * scores.max(axis=0).mean()
    for number in range(len(names) + 1):
        for tuned in itertools.combinations(names, number):
            kept = [n for n in names if n not in tuned]
            same = [all(point[n] == fixed[n] for n in kept) for point in points]
            if scores[same].max(axis=0).mean() >= wanted:
                return number
    return len(names)


def sensitivities(tables: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Sensitivity]:
    """`sensitivity` of several methods, by label, with percentiles of the points of all of them."""
    return {label: _of_scores(*found) for label, found in _scaled(tables).items()}
