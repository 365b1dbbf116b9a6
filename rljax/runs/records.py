"""A run's settings as JSON, and the manifests of its checkpoints; checked before they are used."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rljax.config import FLOAT_FIELDS, Config
from rljax.loggers import tables
from rljax.runs import checkpoints
from rljax.utils import env_settings, values, verified
from rljax.utils.lookup import load_attribute, unknown
from rljax.utils.verified import DamagedError, is_count

_OBJECTS = ("env", "network", "core", "loss")


@dataclasses.dataclass
class Progress:
    """What the host knows of a run, besides the algorithm's state."""

    wall_seconds: float = 0.0
    compile_seconds: float = 0.0
    train_seconds: float = 0.0  # training alone, compilation and evaluations excluded
    train_steps: int = 0  # environment steps in these seconds, over all seeds
    last_return: float | None = None  # mean over seeds in training, at the last row that has one
    last_info: dict[str, float] = dataclasses.field(default_factory=dict)
    """The same of the numbers of `Config.log_info`."""
    evaluated: list[int] = dataclasses.field(default_factory=list)
    """[S] environment steps of each seed at its last evaluation during training."""


def config_record(config: Config) -> dict:
    """The settings as JSON, which `read_config` reads."""
    record = {n: x.item() if isinstance(x, np.generic) else x for n, x in vars(config).items()}
    paired = [n for n in env_settings.NAMES if isinstance(record[n], tuple)]
    dicts = {n: {key: values.encoded(x) for key, x in record[n]} for n in paired}
    return {**{n: plain(n, x) for n, x in record.items()}, **dicts}


def plain(name: str, value: Any) -> Any:
    """A setting without values by name, with paths for what can be imported."""
    if name == "wrappers" and isinstance(value, tuple):
        items = Config(wrappers=value).wrappers  # those of a sweep's point, as a config has them
        return tuple(map(_wrapper, items))
    return named(value) if callable(value) else value


def _wrapper(item):
    function, *value = item if isinstance(item, tuple) else (item,)
    return "=".join((str(named(function)), *value))


def comparable(config: Config) -> dict:
    """`config_record` with objects that have no importable name as text without their address, as
    config.json has lost them: what a notebook defines can be given again on resume."""
    record = config_record(config)
    functions = [name for name in env_settings.NAMES if not isinstance(record[name], dict)]
    texts = {n: _without_address(record[n]) for n in (*_OBJECTS, *functions)}
    return {**record, **texts, "wrappers": tuple(map(_without_address, record["wrappers"]))}


def _without_address(thing):
    return re.sub(r" at 0x[0-9a-f]+", "", str(thing))


def named(thing):
    """A function or class by its path, 'package.module:attribute', if it can be imported."""
    path = f"{getattr(thing, '__module__', '')}:{getattr(thing, '__qualname__', '')}"
    if path.startswith("__main__:"):
        return thing
    try:
        return path if load_attribute(path) is thing else thing
    except ValueError:
        return thing


def read_config(record: Mapping) -> Config:
    """The settings in a config.json or a manifest; raises ValueError or TypeError."""
    known, settings = Config.__dataclass_fields__, {}
    for name, value in record["config"].items():
        if name not in known:
            raise ValueError(f"the run's config: {unknown('setting', name[:80], list(known))}")
        if name in FLOAT_FIELDS:
            value = values.number(value)
        elif name in env_settings.NAMES and isinstance(value, dict):
            value = {key: values.decoded(item) for key, item in value.items()}
        settings[name] = value
    return Config(**settings).validate()


def check(path: Path, manifest: Mapping, trees: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Raises DamagedError unless the checkpoint in this folder is of a run: all facts have their
    form, and all arrays the same number of seeds. For `checkpoints.newest`."""
    for wrong in _wrong(path, manifest, trees):
        raise DamagedError(f"{path} is of no run: {wrong}")


def _wrong(path, manifest, trees) -> Iterator[str]:
    """What is wrong with a checkpoint; each check assumes that those before it passed."""
    for name, is_right in _FACTS.items():
        if name not in manifest:
            yield f"its manifest has no {name!r}"
        if not is_right(manifest[name]):
            yield f"its manifest's {name!r} is of another form"
    if manifest["env_steps"] != int(path.name):
        yield f"it is the one after {manifest['env_steps']} steps"
    try:
        read_config(manifest)
    except (ValueError, TypeError) as error:
        yield str(error)
    num_seeds, expected = len(manifest["seeds"]), {"state"}
    evaluated = manifest["progress"].get("evaluated")
    if isinstance(evaluated, list) and len(evaluated) != num_seeds:
        yield "its 'progress' is of another number of seeds"
    if "best" in manifest:
        expected.add("best")
        if not _is_best(manifest["best"]):
            yield "its manifest's 'best' is of another form"
        if any(len(numbers) != num_seeds for numbers in manifest["best"].values()):
            yield "its 'best' is of another number of seeds"
    if set(trees) != expected:
        yield f"it holds {', '.join(sorted(trees)) or 'nothing'}, not {', '.join(sorted(expected))}"
    for name, arrays in trees.items():
        if not all(array.ndim and len(array) == num_seeds for array in arrays.values()):
            yield f"its {name!r} is of another number of seeds"
        updates = arrays.get("learner/updates", np.zeros(0))
        if updates.shape != (num_seeds,) or updates.dtype.kind != "i":
            yield f"its {name!r} has no updates of a learner"
        if not any(part.startswith("learner/params/") for part in arrays):
            yield f"its {name!r} has no parameters of a learner"
        try:
            checkpoints.nest(arrays)
        except ValueError as error:
            yield str(error)


def _is_best(best):
    if not isinstance(best, dict) or set(best) != {"env_steps", "returns"}:
        return False
    is_lists = all(isinstance(numbers, list) for numbers in best.values())
    return is_lists and all((*map(is_count, best["env_steps"]), *map(_is_number, best["returns"])))


def _is_seeds(seeds):
    is_list = isinstance(seeds, list) and all(is_count(x) and x < 2**32 for x in seeds)
    return is_list and bool(seeds) and len(set(seeds)) == len(seeds)


def _is_number(number):
    return type(values.number(number)) is float or (type(number) is int and abs(number) < 2**1023)


def _is_tables(marks):
    return isinstance(marks, dict) and all(
        name in tables.TABLES and verified.is_mark(mark) for name, mark in marks.items()
    )


def _is_progress(progress):
    if not isinstance(progress, dict) or not set(progress) <= set(Progress.__dataclass_fields__):
        return False
    found = {"evaluated": 0, "last_return": None, "last_info": {}, **progress}
    last, info, each = map(found.pop, ("last_return", "last_info", "evaluated"))
    each = each if isinstance(each, list) else [each]  # in earlier versions one number
    is_right = isinstance(info, dict) and (last is None or _is_number(last))
    return is_right and all(map(_is_number, [*found.values(), *info.values(), *each]))


_FACTS = {
    "config": lambda config: isinstance(config, dict),
    "seeds": _is_seeds,
    "env_steps": is_count,
    "updates": is_count,
    "progress": _is_progress,
    "tables": _is_tables,
}  # and the form of each
