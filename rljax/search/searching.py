"""A whole search, from Python."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rljax import algorithms
from rljax.config import Config
from rljax.search import axes as axis_module
from rljax.search.axes import When
from rljax.search.brackets import Asked
from rljax.search.options import SearchOptions
from rljax.sweep import points, results
from rljax.sweep.options import SweepOptions
from rljax.sweep.points import Point, Range
from rljax.sweep.running import FailedError


class Found(NamedTuple):
    """What a search found."""

    best: Point  # the winner's settings
    config: Config  # the base with them
    table: Any  # `pandas.DataFrame`: the rows of all trials, as `sweep.run` returns them
    fresh: Any  # another: those of the fresh seeds
    summary: dict  # the content of search.json

    @property
    def preset(self) -> str:
        """The winner as an entry of rljax/presets.py."""
        return self.summary["preset"]

    @property
    def sentences(self) -> list[str]:
        """Whether fresh seeds tell the winner from the others."""
        return self.summary["sentences"]


def search(
    base: Config,
    axes: Mapping[str, Sequence | Range | When],
    budget: int | str,
    *,
    seeds: Iterable[int] = range(4),
    algorithm: str = "a2c",
    own: Any = None,
    run_dir: Path | str | None = None,
    **options: Any,
) -> Found:
    """Finds good settings within a budget of environment steps.

    Args:
        base: the settings that no axis changes; its `total_timesteps` is the length of a run.
        axes: values to choose from, or ranges to sample; `When` for those under a condition.
        budget: environment steps of the search, such as "50M"; fresh seeds come on top.
        seeds: consecutive ones, with which every point is trained.
        algorithm: its name.
        own: the algorithm's own options, such as a `WorkerConfig`; by default its defaults.
        run_dir: the directory for the files that experiments/tune.py writes, from which a search
            is resumed. Without one they are temporary.
        options: fields of `options.SearchOptions`, such as `sampler`, and of
            `sweep.SweepOptions`, such as `eval_episodes`.

    Raises:
        ValueError, TypeError: a setting, an option or an axis is wrong, or the budget too small.
        KeyboardInterrupt: it was interrupted; with a run directory it can be resumed.
        FailedError: no trial has a return.
    """
    from rljax.search import directory

    seeds = list(seeds)
    if not seeds or seeds != list(range(seeds[0], seeds[0] + len(seeds))):
        raise ValueError(f"seeds = {seeds}: must be consecutive")
    own = algorithms.find(algorithm).own if own is None else (own,)
    known = SearchOptions.__dataclass_fields__
    of_search = {name: options.pop(name) for name in [*options] if name in known}
    if isinstance(of_search.get("envs"), list):
        of_search["envs"] = tuple(of_search["envs"])
    how = SearchOptions(budget=budget, **of_search)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "search" if run_dir is None else Path(run_dir)
        shared = dict(algorithm=algorithm, seed=seeds[0], num_seeds=len(seeds), run_dir=path)
        quiet = options.pop("quiet", run_dir is None)
        others = SweepOptions(**shared, quiet=quiet, **options)
        checked = axis_module.checked(axes, base, own)
        asked = Asked(base, others, how, own, checked)
        with directory.prepared(asked, is_kept=run_dir is not None) as train:
            done = train()
        if done.summary["status"] == "interrupted":
            raise KeyboardInterrupt
        if done.summary["status"] == "failed":
            why = [f"{failure.trial}: {failure.why}" for failure in done.failures[:1]]
            raise FailedError(*why or ["no trial has a return: no episode ended"])
        best = done.summary["ranking"][0]["settings"]
        config, _ = points.apply(base, own, best)
        kept = path / "fresh" / "results.csv"
        has_fresh = kept.exists() and kept.stat().st_size
        fresh = results.read(kept) if has_fresh else results.frame([])
        return Found(best, config, results.read(path), fresh, done.summary)
