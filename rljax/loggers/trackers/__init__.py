"""Where rows of metrics go besides the tables: TensorBoard, W&B, trackio, MLflow, or loggers of
one's own, which are any objects with three methods:

    begin(record)   once, before the first row: config.json, and the keys of `described`
    write(row)      a row of metrics.csv, or of an evaluation, as a dict of Python's numbers: seed,
                    env_steps and others, which `tags.of` names as trackers do
    end(summary)    once, with what summary.json has

Where a run is resumed, all its rows are written again, from the first on: a logger that keeps what
it had leaves out what it knows.

feed         hands rows to loggers, in threads of their own
tags         the names of numbers in trackers
media        the pictures of a run
tensorboard, wandb, trackio, mlflow    the loggers, each of the package of its name
"""

import importlib
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rljax.utils import imports
from rljax.utils.lookup import load_attribute, unknown

TRACKERS = {
    "tensorboard": ("TensorBoard", "tensorboardX"),
    "wandb": ("WandB", "wandb"),
    "trackio": ("Trackio", "trackio"),
    "mlflow": ("MLflow", "mlflow"),
}
"""(class in the module of this name, the package that it needs)."""
METHODS = ("begin", "write", "end")


def make(given: Sequence[Any], setting: str = "log") -> dict[str, Any]:
    """Loggers by name: of `TRACKERS`, of one's own by its path 'package.module:attribute', or
    objects; a class, or a function, is called. `setting` names them in errors.

    Raises:
        ValueError: an unknown name, one that is given twice, a path that leads nowhere, or a
            package that is missing.
        TypeError: it has not the three methods.
    """
    found = {}
    for one in given:
        name = one if isinstance(one, str) else type(one).__name__
        if name in found:
            raise ValueError(f"{setting}: {name!r} is given twice")
        found[name] = _made(one, setting)
    return found


def _made(given, setting):
    logger = given
    if isinstance(given, str):
        if ":" not in given:
            return _tracker(given, setting)
        logger = load_attribute(given)
    if isinstance(logger, type) or (callable(logger) and not hasattr(logger, "write")):
        logger = logger()
    if missing := [name for name in METHODS if not callable(getattr(logger, name, None))]:
        raise TypeError(f"{setting} = {given!r}: has no method {missing[0]!r}")
    return logger


def _tracker(name, setting):
    if name not in TRACKERS:
        raise ValueError(unknown(f"tracker, {setting} =", name, list(TRACKERS)))
    attribute, package = TRACKERS[name]
    imports.check_installed(f"{setting} = {name!r}", name, package)
    return getattr(importlib.import_module(f"{__name__}.{name}"), attribute)()


def described(record: Mapping, run_dir: Path | None, seeds: Sequence[int], started: float) -> dict:
    """What `begin` is given: config.json, and

    id        of the run, which no other has
    run_dir   where the run is written, or None
    name      of the run
    seeds     its seeds
    started   the time, in seconds since 1970, at which its `wall_seconds` were 0
    part      of a trial in a sweep what tells it from others, else absent
    """
    name = run_dir.resolve().name if run_dir else "run"
    own = dict(run_dir=run_dir, name=name, seeds=list(seeds), started=started)
    return {"id": secrets.token_hex(4), **record, **own}
