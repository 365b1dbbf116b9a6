"""The settings of a run, from keywords and a preset, or from a saved run. Needs no JAX."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rljax import algorithms, presets
from rljax.config import Config
from rljax.runs import directory, records
from rljax.runs.options import FIXED, KEPT, RunOptions
from rljax.utils import nodes
from rljax.utils.lookup import differing, unknown


class Settings(NamedTuple):
    """The settings and options of a run."""

    algorithm: str
    config: Config
    options: RunOptions
    own: tuple[Any, ...]  # the algorithm's own options: () or one dataclass

    def replace(self, changes: Mapping[str, Any]) -> "Settings":
        """The settings with other values by name; raises TypeError if no part has the name."""
        parts, left = [], dict(changes)
        for part in (self.config, self.options, *self.own):
            names = [field.name for field in dataclasses.fields(part)]
            mine = {name: left.pop(name) for name in names if name in left}
            parts.append(dataclasses.replace(part, **mine))
        for name in left:
            known = [x.name for part in parts for x in dataclasses.fields(part)]
            raise TypeError(unknown("setting", name, known))
        return self._replace(config=parts[0], options=parts[1], own=tuple(parts[2:]))


def start_from(algorithm: str, env: Any = None, preset: str | None = None) -> Settings:
    """The settings that a run starts from: an environment's preset, if it has one. Raises
    ValueError if there is no such algorithm or preset.

    Args:
        env: by default the preset's environment.
        preset: another environment, or "none".
    """
    known = algorithms.find(algorithm)
    name, own = preset or env or Config().env, known.own
    try:
        config, found = presets.preset(algorithm, name), presets.found(algorithm, name)
        own = tuple(part_with(options, found) for options in own)
    except (ValueError, TypeError):
        if preset and name != "none":
            raise
        config = presets.base(algorithm)
    if env is not None or name == "none":
        config = dataclasses.replace(config, env=Config().env if env is None else env)
    options = RunOptions(num_seeds=known.num_seeds, preset=preset)
    return Settings(algorithm, config, options, own)


def saved(run_dir: Path, wanted: str | None = None) -> Settings:
    """The settings of a saved run, to be resumed; raises ValueError or TypeError if there is none,
    its record is damaged, or its algorithm is not the `wanted` one."""
    record = directory.read_record(run_dir)
    name, known = record.get("algorithm"), [wanted] if wanted else list(algorithms.ALGORITHMS)
    if name not in known:
        raise ValueError(f"{str(run_dir)!r} is a run of {name}, not of {' or '.join(known)}")
    told, config = record["run"], records.read_config(record)
    kept = {name: told[name] for name in KEPT if name in told}
    options = RunOptions(**kept, run_dir=Path(run_dir)).validate()
    own = algorithms.find(name).own_with(told)
    return Settings(name, config, options.with_log_interval(config), own)


def part_with(options: Any, found: Mapping) -> Any:
    """Options, a dataclass, with those of its fields that are found."""
    names = [field.name for field in dataclasses.fields(options)]
    return dataclasses.replace(options, **{n: found[n] for n in names if n in found})


def part(kind: type, told: Mapping, **others: Any) -> Any:
    """Options, a dataclass, from those in a config.json's "run", and others by name."""
    kept = {name: told[name] for name in kind.__dataclass_fields__ if name in told}
    return kind(**{**kept, **others})


def check_resumable(before: Settings, after: Settings) -> None:
    """Raises ValueError if a resumed run changes a setting that it must keep."""
    there, here = _unchangeable(before), _unchangeable(after)
    if here["total_timesteps"] < there["total_timesteps"]:
        now, then = here["total_timesteps"], there["total_timesteps"]
        raise ValueError(f"total_timesteps = {now}: may only be raised on resume, from {then}")
    if changes := others(there, here, "total_timesteps"):
        raise ValueError(f"on resume only total_timesteps may be raised: the run has {changes}")


def others(there: Mapping, here: Mapping, *but: str) -> str:
    """How a saved run or sweep differs, as "name = this, not that, ..."; the names in `but` may."""
    names = [name for name in differing([there, here]) if name not in but]
    return ", ".join(f"{name} = {there[name]!r}, not {here[name]!r}" for name in names)


def record(settings: Settings) -> dict:
    """The settings for config.json."""
    names = [algorithms.find(settings.algorithm).options_name]
    own = {name: dataclasses.asdict(part) for name, part in zip(names, settings.own)}
    options = {**dataclasses.asdict(settings.options), "run_dir": str(settings.options.run_dir)}
    return {
        "algorithm": settings.algorithm,
        "config": records.config_record(settings.config),
        "run": {**options, **own},
    }


def in_common(algorithm: str, config: Config, options: Any, own: tuple[Any, ...]) -> dict:
    """What several processes that train as one must have alike."""
    of_each = ("run_dir", "resume", "coordinator", "process_id", "log", "log_format", "quiet")
    shared = {name: x for name, x in vars(options).items() if name not in of_each}
    owned = {name: x for part in own for name, x in vars(part).items()}
    told = {"algorithm": algorithm, **records.comparable(config), **shared, **owned}
    return {**told, **directory.versions(), **nodes.versions()}


def _unchangeable(settings):
    fixed = {name: getattr(settings.options, name) for name in FIXED}
    own = {n: value for part in settings.own for n, value in dataclasses.asdict(part).items()}
    own.pop("max_worker_restarts", None)  # changes nothing of what is learned
    return {**records.comparable(settings.config), **fixed, **own}
