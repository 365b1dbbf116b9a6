"""What the scripts in experiments/claims share: their command line, sweeps that are resumed, tuning
of all sides alike, and what they write.

A script tests a claim: its `measure` gives numbers and sentences, its `draw` a figure of them.
"""

import dataclasses
import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax import algorithms, analysis, runs
from rljax.cli import fail, flags, run_script
from rljax.config import Config
from rljax.runs import directory, interrupts
from rljax.sweep import directory as sweeps
from rljax.sweep import points, results
from rljax.sweep.options import SweepOptions
from rljax.utils import atomic_io, errors, platform

RESULT, FIGURE = "result.json", "figure.png"
FRESH = 100  # the first of the seeds that no tuning had
_TUNING, _SEEDS = 5, 10  # seeds of each setting that is tried, and of those chosen
_MORE = 3  # values that are tried beyond an end of a grid


@dataclasses.dataclass(frozen=True)
class Options:
    quick: bool = False  # Few seeds and short runs: whether the script works, not what is true.
    run_dir: Path = Path("runs/claims")
    """A folder for each claim is written in here: its sweeps, which are resumed, its result and its
    figure. What --quick writes has a folder of its own."""


def folder_of(options: Options, name: str) -> Path:
    """Where a claim's sweeps, result and figure are."""
    return options.run_dir / (name + "_quick" * options.quick)


class Lab(NamedTuple):
    """Where a claim is tested."""

    folder: Path
    quick: bool

    def of(self, full: Any, quick: Any) -> Any:
        """One of two values."""
        return quick if self.quick else full

    def seeds(self, number: int = _SEEDS) -> int:
        """A number of seeds, of which a quick test has 2."""
        return self.of(number, 2)

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, as JSON has it; made once, and read from then on."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            self.tell(name)
            with interrupts.noted() as signals:
                found = make()
                signals.check()
            with atomic_io.writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            atomic_io.write_json(path, found)
        return atomic_io.read_json(path)

    def sweep(
        self,
        name: str,
        base: Config,
        axes: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        algorithm: str = "a2c",
        own: Any = None,
        first: int = FRESH,
        num_seeds: int = _SEEDS,
        eval_episodes: int = 0,
    ) -> Any:
        """The table of a sweep, `sweep.run`'s, with seeds from `first` on; resumed if it was
        interrupted, and read if it is complete."""
        own = algorithms.find(algorithm).own if own is None else (own,)
        grid = points.grid(axes) if isinstance(axes, Mapping) else list(axes)
        how = SweepOptions(
            algorithm=algorithm,
            seed=first,
            num_seeds=num_seeds,
            eval_episodes=eval_episodes,
            run_dir=self.folder / name,
            quiet=True,
        )
        asked = sweeps.resumed(sweeps.Asked(base, how, own, grid, heat_map=False))
        if sweeps.is_done(how.run_dir / sweeps.SUMMARY):
            return results.read(how.run_dir)
        self.tell(f"{name}: {len(grid) * num_seeds:,} trials")
        with sweeps.prepared(asked) as run:
            done = run()
        if done.failures:
            raise errors.TrainingError(f"{done.failures[0].trial}: {done.failures[0].why}")
        if done.exit_status:
            raise KeyboardInterrupt
        return results.read(how.run_dir)

    def tuned(
        self,
        name: str,
        base: Config,
        axes: Mapping[str, Sequence[float]],
        *,
        score: Callable[[Any], np.ndarray] | None = None,
        **how: Any,
    ) -> tuple[dict[str, Any], Any]:
        """(the best point of an axis, the table of ten fresh seeds with it). Every side of a claim
        is tuned like this: the best mean of five seeds, of as many values in geometric sequence;
        while the best is at an end, up to `_MORE` values are added there.

        Args:
            axes: one axis.
            score: table -> [trials], which is to be high; by default the final returns.
            how: as for `sweep`.
        """
        tried = {**how, "first": 0, "num_seeds": self.seeds(_TUNING)}
        ((axis, new),), means = axes.items(), {}
        for _ in range(1 + _MORE):
            where = f"{name}_tuning" + f", {new[0]:g}" * bool(means)
            scores = (score or finals)(self.sweep(where, base, {axis: new}, **tried))
            means |= dict(zip(new, np.reshape(scores, (len(new), -1)).mean(axis=1)))
            values, best = sorted(means), max(means, key=means.get)
            if len(values) < 2 or best in values[1:-1]:
                break
            end, beside = values[:2] if best == values[0] else values[:-3:-1]
            new = [float(f"{end**2 / beside:.3g}")]
        point = {axis: best}
        return point, self.sweep(name, base, [point], num_seeds=self.seeds(), **how)

    def tell(self, text: str) -> None:
        """Prints what begins."""
        print(f"{self.folder.name}: {text}", flush=True)


def trained(algorithm: str, **settings: Any) -> runs.Run:
    """`rljax.train` of runs whose result is kept: without evaluations and output, from the first
    fresh seed by default. Raises KeyboardInterrupt if it was interrupted."""
    how = dict(seed=FRESH, eval_episodes=0, quiet=True)
    run = runs.train(algorithm, **how | settings)
    if run.status == "interrupted":
        raise KeyboardInterrupt
    return run


def in_new_process(make: Callable[[], Any]) -> Any:
    """What a function gives, which can be pickled, in a Python process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(make).result()


class Found(NamedTuple):
    """What a claim's test gives."""

    answer: str  # true, false, or true where
    sentences: Sequence[str]  # what was found, with numbers
    numbers: Mapping[str, Any]  # of the figure and the sentences


class Verdict(NamedTuple):
    """The first of two sets of seeds against the second."""

    sign: int  # of the difference of their IQMs; 0 where they are not told apart
    sentence: str


def compare(first: np.ndarray, second: np.ndarray, names: Sequence[str]) -> Verdict:
    """As `analysis.compare`."""
    found = analysis.compare(first, second)
    x, what = found.difference, {1: "above", -1: "below", 0: "not told apart from"}
    sign = int(np.sign(x.value)) if found.is_decided else 0
    interval = f"{x.value:.3g} [{x.low:.3g}, {x.high:.3g}]"
    return Verdict(sign, f"{names[0]} is {what[sign]} {names[1]}: the difference is {interval}.")


def finals(table: Any) -> np.ndarray:
    """The final returns of all trials, point after point and seed after seed; of those without one,
    the lowest of the table."""
    found = analysis.final_returns(table).sort_values("trial")["final_return"]
    return found.fillna(found.min()).to_numpy()


def steps_to(table: Any, target: float, column: str = "env_steps") -> np.ndarray:
    """[trials] a column's value where a row's mean return first reaches a target; 1.1 of the last
    value for those that never do. Trials are in the order of points and seeds."""
    reached = table[table["episodic_return"] >= target].groupby("trial")[column].first()
    return reached.reindex(np.unique(table["trial"])).fillna(1.1 * table[column].max()).to_numpy()


def summary(values: Iterable[float]) -> dict[str, Any]:
    """The IQM over seeds, its 95% interval, and the values themselves."""
    values = np.array(list(values), float)
    low, high = analysis.interval(values)
    return {"iqm": analysis.iqm(values), "low": low, "high": high, "seeds": values.tolist()}


def told(found: Mapping[str, float], form: str = ".1f") -> str:
    """A `summary` in a sentence."""
    iqm, low, high = (format(float(found[name]), form) for name in ("iqm", "low", "high"))
    return f"{iqm} [{low}, {high}]"


def crossing(places: Sequence[float], values: Sequence[float], level: float) -> float:
    """Where values fall below a level for good, in a straight line between two of them; the last
    place if they do not, and the first if none is above."""
    above = np.flatnonzero(np.asarray(values) >= level)
    if not above.size:
        return places[0]
    if (i := above[-1]) == len(values) - 1:
        return places[-1]
    return np.interp(level, [values[i + 1], values[i]], [places[i + 1], places[i]])


def resampled(statistic: Callable[[np.ndarray], float], scores: np.ndarray) -> tuple:
    """(a statistic of scores [..., S], and the ends of its 95% interval: a percentile bootstrap of
    the seeds, all cells together)."""
    generator, seeds = np.random.default_rng(0), scores.shape[-1]
    found = [statistic(scores[..., generator.integers(seeds, size=seeds)]) for _ in range(500)]
    return statistic(scores), *np.percentile(found, [2.5, 97.5])


def draw_intervals(axes: Any, i: int, places: Sequence[float], found: Sequence, label="") -> None:
    """A line through `summary`s at places, with their intervals."""
    middle, low, high = (
        np.array([x[name] for x in found], float) for name in ("iqm", "low", "high")
    )
    analysis.style.draw_line(axes, i, np.asarray(places, float), middle, (low, high), label)


def mark_places(axes: Any, places: Sequence[float]) -> None:
    """A logarithmic horizontal axis that is marked at the places that were measured."""
    axes.set_xscale("log")
    axes.set_xticks(places, [f"{place:,g}" for place in places])
    axes.minorticks_off()


def draw_bars(axes: Any, found: Mapping[str, Any]) -> None:
    """A bar for each number or `summary`, with its interval, from the top down."""
    places, told = (
        np.arange(len(found)),
        [x if isinstance(x, Mapping) else None for x in found.values()],
    )
    values = [float(x["iqm"] if y else x) for x, y in zip(found.values(), told)]
    axes.barh(places, values, color=analysis.COLORS[0])
    for place, x in zip(places, told):
        if x:
            axes.plot([float(x["low"]), float(x["high"])], [place, place], color="black")
    axes.set_yticks(places, list(found))
    axes.invert_yaxis()


def main(
    doc: str,
    measure: Callable[[Lab], Found],
    draw: Callable[[Mapping[str, Any], Path], Any],
    path: str,
    argv: list[str] | None = None,
) -> int:
    """Tests a claim, and writes result.json and figure.png; returns the exit status.

    Args:
        doc: of the script; its first paragraph is the claim.
        draw: draws the numbers, as JSON has them, into a file.
        path: of the script, which names the claim's folder.
    """

    def run(argv, signals, stack):
        del signals
        try:
            options = flags.parse_options(Options, "Tests a claim.", argv, Options())
        except (ValueError, TypeError) as error:
            return fail(error)
        lab = Lab(folder_of(options, Path(path).stem), options.quick)
        device = stack.enter_context(platform.computing_on("auto", platform.cpu_devices()))
        with atomic_io.writing(lab.folder):
            lab.folder.mkdir(parents=True, exist_ok=True)
        found = measure(lab)
        claim = " ".join(doc.split("\n\n")[0].split())
        result = {"claim": claim, **found._asdict(), "quick": options.quick}
        machine = directory.machine(device)
        del machine["command_line"]  # it names folders of this machine
        atomic_io.write_json(lab.folder / RESULT, {**result, "machine": machine})
        draw(atomic_io.read_json(lab.folder / RESULT)["numbers"], lab.folder / FIGURE)
        print(claim, f"-> {found.answer}", *found.sentences, lab.folder / FIGURE, sep="\n")
        return 0

    return run_script(run, argv)
