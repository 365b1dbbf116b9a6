"""Points chosen by Optuna, an extra, by ask and tell: its storage, its dashboard, its samplers."""

import contextlib
import inspect
import json
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rljax.search.axes import Axes, counts
from rljax.sweep import points as spaces
from rljax.sweep.points import Point, Range
from rljax.utils import errors, imports
from rljax.utils.lookup import load_attribute

AXES, RUN = "rljax: axes", "rljax: run directory"  # attributes of a study, and of a trial


class Study:
    """A study of Optuna as a sampler of a search, see `samplers`."""

    def __init__(
        self,
        axes: Axes,
        sampler: str,
        seed: int,
        run_dir: Path,
        storage: str | None = None,
        name: str | None = None,
    ):
        """Makes it, or continues the one that is there; several searches may share one.

        Args:
            sampler: a name of `samplers.OF_OPTUNA`, or the path of a class.
            storage: a URL; by default a file of the run directory.
            name: by default that of the run directory.

        Raises:
            ValueError: a package is missing, there is no such sampler, the storage cannot be had,
                or holds a study of other axes.
        """
        optuna = _optuna()
        self.axes, self.run = axes, f"{socket.gethostname()}:{run_dir.resolve()}"
        self.space = {n: _distribution(optuna, n, axis.values) for n, axis in axes.items()}
        made = _sampler(optuna, sampler, seed, self._unconditional())
        self.states, self.make = optuna.trial.TrialState, optuna.trial.Trial
        try:
            kept = storage or _in_file(optuna, run_dir / "optuna.journal")
            self.study = optuna.create_study(
                storage=kept,
                sampler=made,
                study_name=name or run_dir.name,
                direction="maximize",
                load_if_exists=True,
            )
            self._check_axes()
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            why = str(error).splitlines()[0]
            raise ValueError(f"storage = {storage or self.run!r}: {why}") from error
        except Exception as error:  # of the database's library
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise ValueError(f"storage = {storage!r}: cannot be used ({why})") from error
        self.trials: list[Any] = []
        self.done: set[int] = set()  # numbers of those that it knows the scores of

    @property
    def ids(self) -> list[int]:
        return [trial.number for trial in self.trials]

    def _unconditional(self):
        return {n: self.space[n] for n, axis in self.axes.items() if axis.condition is None}

    def _check_axes(self):
        """A study that is shared has the same axes everywhere."""
        mine = json.dumps({n: str(x) for n, x in self.space.items()}, sort_keys=True)
        theirs = self.study.user_attrs.get(AXES)
        if theirs is None and not self.study.get_trials(deepcopy=False):
            self.study.set_user_attr(AXES, mine)
        elif theirs != mine:
            name = self.study.study_name
            raise ValueError(f"study {name!r} is of other axes: {theirs or 'it is of no search'}")

    def ask(self, number: int) -> list[Point]:
        with _failures_told():
            return [self._asked() for _ in range(number)]

    def _asked(self):
        trial = self.study.ask()
        trial.set_user_attr(RUN, self.run)
        point: Point = {}
        for name, axis in self.axes.items():
            point[name] = axis.otherwise
            if counts(self.axes, name, point):
                point[name] = _suggested(trial, name, axis.values, self.space[name])
        self.trials.append(trial)
        return point

    def restore(self, points: list[Point], ids: list[int]) -> None:
        del points
        known = {x.number: x for x in self.study.get_trials()}
        if lost := set(ids) - set(known):
            raise ValueError(f"study {self.study.study_name!r} has no trial {min(lost)}")
        self.trials += [self.make(self.study, known[number]._trial_id) for number in ids]
        self.done |= {number for number in ids if known[number].state.is_finished()}

    def forget_others(self) -> None:
        """After `restore`: those of this run that were asked for and never trained have failed."""
        for trial in self.study.get_trials(deepcopy=False, states=(self.states.RUNNING,)):
            if trial.user_attrs.get(RUN) == self.run and trial.number not in self.ids:
                self.study.tell(trial.number, state=self.states.FAIL)

    def tell(self, index: int, score: float, share: float, is_whole: bool) -> None:
        if self.trials[index].number in self.done:
            return
        self.done.add(self.trials[index].number)
        with _failures_told():
            if is_whole:
                self.study.tell(self.trials[index], score)
            else:
                self.trials[index].report(score, round(1e6 * share))
                self.study.tell(self.trials[index], state=self.states.PRUNED)


@contextlib.contextmanager
def _failures_told() -> Iterator[None]:
    """Turns what a study's storage raises in the midst of a search into a TrainingError."""
    try:
        yield
    except Exception as error:
        told = errors.in_a_line(error)
        raise errors.TrainingError(
            f"Optuna's study cannot be used ({told}); see --resume"
        ) from error


def check(sampler: str) -> None:
    """Raises ValueError if a package is missing, or there is no such sampler."""
    _sampler(_optuna(), sampler, 0, {})


def _optuna():
    optuna = imports.optuna("sampler")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _in_file(optuna, path):
    from optuna.storages import journal

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental
        path.parent.mkdir(parents=True, exist_ok=True)
        return optuna.storages.JournalStorage(journal.JournalFileBackend(str(path)))


def _sampler(optuna, given, seed, space):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some arguments are experimental
        if given == "tpe":
            return optuna.samplers.TPESampler(
                seed=seed, multivariate=True, group=True, constant_liar=True
            )
        if given == "cma":
            imports.check_installed("sampler = cma", "search", "cmaes")
            return optuna.samplers.CmaEsSampler(
                seed=seed, consider_pruned_trials=True, warn_independent_sampling=False
            )
        if given == "qmc":
            return _known_space(optuna, seed, space)
        kind = load_attribute(given)
        is_sampler = isinstance(kind, type) and issubclass(kind, optuna.samplers.BaseSampler)
        try:
            has_seed = is_sampler and "seed" in inspect.signature(kind).parameters
            made = kind(**({"seed": seed} if has_seed else {})) if is_sampler else None
        except Exception as error:  # of a constructor that wants more
            why = f"it cannot be made without arguments ({errors.in_a_line(error)})"
            raise ValueError(f"sampler = {given!r}: {why}") from error
        if made is None:
            raise ValueError(f"sampler = {given!r}: must be a class of Optuna's samplers")
        return made


def _known_space(optuna, seed, space):
    """A Sobol sequence from the first point on: Optuna's waits for the first that ends to tell it
    what the axes are."""

    class Known(optuna.samplers.QMCSampler):
        def infer_relative_search_space(self, study, trial):
            return space

    quiet = dict(warn_asynchronous_seeding=False, warn_independent_sampling=False)
    return Known(seed=seed, scramble=True, **quiet)


def _distribution(optuna, name, values):
    kinds = optuna.distributions
    if not isinstance(values, Range):
        return kinds.CategoricalDistribution([*map(_choice, values)])
    if spaces.is_whole(name):
        low, high = int(-(-values.low // 1)), int(values.high // 1)
        return kinds.IntDistribution(low, high, log=values.is_log)
    return kinds.FloatDistribution(values.low, values.high, log=values.is_log)


def _choice(value):
    return value if isinstance(value, bool | int | float | str) else spaces.label(value)


def _suggested(trial, name, values, distribution):
    if not isinstance(values, Range):
        found = trial.suggest_categorical(name, distribution.choices)
        return values[distribution.choices.index(found)]
    ends = distribution.low, distribution.high
    if spaces.is_whole(name):
        return trial.suggest_int(name, *ends, log=values.is_log)
    found = float(f"{trial.suggest_float(name, *ends, log=values.is_log):.4g}")  # to be readable
    return min(max(found, values.low), values.high)
