"""The options of a search, beside those that it shares with sweeps. Needs no JAX."""

import dataclasses
import re
from typing import Literal

from rljax.utils.checks import check
from rljax.utils.lookup import unknown

SCHEDULERS = ("halving", "hyperband", "none")
OBJECTIVES = ("final", "auc", "best")
MOST_RUNGS = 20
FEWEST_SEEDS = 3  # from which an interval decides
MULTIPLES = {"k": 10**3, "M": 10**6, "G": 10**9}


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """Options of a search: they decide which points are trained, and for how long."""

    budget: int | str = 0
    """Environment steps of the whole search, such as 50M or 500k; those of the fresh seeds after
    it come on top."""
    sampler: str = "random"
    """How points are chosen: random, latin-hypercube, evolution; or of Optuna (an extra): tpe, cma,
    qmc, or package.module:attribute."""
    sampling_seed: int = 0
    """Of the points."""
    scheduler: Literal[SCHEDULERS] = "halving"
    """Which points end early: halving ends the worst of a bracket at each rung, hyperband has
    brackets of several numbers of rungs, none trains all points to the end."""
    eta: int = 4
    """At a rung one point in this number goes on, to this number of times as many steps."""
    rungs: int = 3
    """Rungs of a bracket, of which the last is the end of training."""
    confidence: float = 0.9
    """A point ends only if it is below the best of its rung with this confidence, by a one-sided
    t interval over the seeds that both have."""
    slack: float = 0.5
    """The share of a bracket's steps that points may take which the interval keeps."""
    bracket: int | None = None
    """Points of a bracket, at most; by default 16, or as many as the budget allows where points do
    not depend on what was found."""
    objective: Literal[OBJECTIVES] = "final"
    """Of the returns in training: their mean in the last tenth, the mean over all of the steps, or
    the best row."""
    trial_steps: int | None = None
    """A cap on the environment steps of a trial, below --total-timesteps, over which schedules run;
    by default there is none."""
    envs: tuple[str, ...] = ()
    """Several environments, in each of which every point is trained: --env A B C."""
    references: tuple[str, ...] = ()
    """For several environments: the returns that score 0 and 1, as NAME=LOW:HIGH for each. By
    default points are compared by their ranks."""
    fresh_seeds: int = 10
    """Seeds with which the winner, the runner-up and the settings of before are trained again; 0
    for none."""
    exact: bool = False
    """Programs of one size, filled up with copies: a survivor has the bits of a search in which
    nothing ends. Slower."""
    storage: str | None = None
    """Of Optuna's study: a URL, such as sqlite:///studies.db, which several machines may share; by
    default a file of the run directory."""
    study: str | None = None
    """Its name there; by default that of the run directory."""

    def validate(self) -> "SearchOptions":
        """Raises ValueError or TypeError if an option is out of its range or of another type."""
        least = dict(sampling_seed=0, eta=2, rungs=1, bracket=2, trial_steps=1, fresh_seeds=0)
        check(self, "budget", **least)
        if self.rungs > MOST_RUNGS:
            raise ValueError(f"rungs = {self.rungs}: must be at most {MOST_RUNGS}")
        self.steps  # noqa: B018
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"confidence = {self.confidence}: must be at least 0.5 and below 1")
        if not 0 <= self.slack <= 100:
            raise ValueError(f"slack = {self.slack}: must be from 0 to 100")
        if self.fresh_seeds in (1, 2):
            raise ValueError(f"fresh_seeds = {self.fresh_seeds}: must be 0 or at least 3")
        if len(set(self.envs)) < len(self.envs):
            raise ValueError(f"envs = {' '.join(self.envs)}: must all be different")
        self.limits()
        return self

    @property
    def steps(self) -> int:
        """The budget; raises ValueError or TypeError if it is none."""
        return read_steps(self.budget)

    def limits(self) -> dict[str, tuple[float, float]]:
        """The references by environment; raises ValueError if one is malformed."""
        found = {}
        for text in self.references:
            name, _, ends = text.rpartition("=")
            try:
                low, high = map(float, ends.split(":"))
                is_right = name and low < high and high - low < float("inf")
            except ValueError:
                is_right = False
            if not is_right:
                raise ValueError(f"references: {text!r} must be NAME=LOW:HIGH, LOW < HIGH")
            if name not in self.envs:
                raise ValueError(f"references: {unknown('environment', name, self.envs)}")
            found[name] = low, high
        if found and set(found) != set(self.envs):
            lacking = next(env for env in self.envs if env not in found)
            raise ValueError(f"references: {lacking} has none; all environments need one")
        return found


def read_steps(given: int | str) -> int:
    """A number of steps, from 50M as from 50_000_000; raises ValueError or TypeError."""
    if isinstance(given, bool) or not isinstance(given, int | str | float):
        raise TypeError(f"budget = {given!r}: must be a number of environment steps, such as 50M")
    found = re.fullmatch(r"([\d_.]+(?:e\d+)?)([kMG]?)", str(given).strip())
    try:
        steps = round(float(found[1]) * MULTIPLES.get(found[2], 1)) if found else -1
    except (ValueError, OverflowError):
        steps = -1
    if not 0 <= steps < 2**63:
        raise ValueError(f"budget = {given}: must be a number of environment steps, such as 50M")
    return steps
