"""How a run starts: in a directory of its own, or from a checkpoint."""

import contextlib
import dataclasses
import itertools
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flags
import numpy as np
from flags import RunOptions, other_settings

from rljax import runs
from rljax.config import Config, differing
from rljax.loggers import tables
from rljax.runs import checkpoints
from rljax.utils import atomic_io, values


@dataclasses.dataclass
class Progress:
    """What the host knows of a run, besides the algorithm's state."""

    wall_seconds: float = 0.0
    compile_seconds: float = 0.0
    train_seconds: float = 0.0
    """Training alone, compilation and evaluations excluded."""
    train_steps: int = 0
    """Environment steps taken in these seconds, over all seeds."""
    last_return: float | None = None
    """Mean return over seeds in training, at the last row that has one."""
    evaluated: int = 0
    """Environment steps at the last evaluation during training."""


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a run starts."""

    run_dir: Path
    updates: int = 0
    states: Any = None
    """The checkpoint's state of all seeds, or None for a fresh start."""
    best: Any = None
    """`evaluate.Best`, if there has been an evaluation."""
    progress: Progress = dataclasses.field(default_factory=Progress)
    raised: bool = False
    """The run was raised to more steps: its rows of metrics are spaced anew from here."""
    in_row: bool = False
    """It was stopped between two rows."""
    complete: bool = False
    """There is nothing left to do."""


@contextlib.contextmanager
def fresh(
    algorithm: str, config: Config, options: RunOptions, device: str, *more: Any
) -> Iterator[Start]:
    """A new run directory, locked.

    Args:
        more: the algorithm's own options, dataclasses.

    Raises:
        ValueError: it is taken or cannot be written.
    """
    from rljax import networks, rollout

    run_dir = options.run_dir or default_run_dir(config, algorithm, options.seed)
    options = dataclasses.replace(options, run_dir=run_dir)
    chosen = networks.describe(config, rollout.make_env_and_network(config)[0].spec)
    runs.create(run_dir, {**record(algorithm, config, device, options, *more), "network": chosen})
    with runs.lock(run_dir):
        yield Start(run_dir)


@contextlib.contextmanager
def resumed(
    config: Config, options: RunOptions, device: str, seeds: list[int], like: Any
) -> Iterator[Start]:
    """A run taken up from its newest whole checkpoint, locked.

    What the run wrote after that checkpoint is cut off: rows of the tables, and checkpoints that
    cannot be gone on from, which are renamed to `*.aside`.

    Args:
        like: the shapes of the algorithm's state of all seeds.

    Raises:
        ValueError: another process is at work on it, no checkpoint is whole, or it is of other
            settings.
    """
    with runs.lock(options.resume):
        try:
            start = _take_up(config, options, device, seeds, like)
        except atomic_io.WriteError:
            raise
        except OSError as error:
            where = error.filename or options.resume
            raise ValueError(f"{where} cannot be used to resume ({error.strerror})") from error
        yield start


def _take_up(config, options, device, seeds, like):
    run_dir = options.resume
    saved = runs.read_record(run_dir)
    atomic_io.tidy(run_dir)
    atomic_io.tidy(run_dir / "checkpoints")
    if _never_began(run_dir):
        _warn(f"{run_dir} has no checkpoint and no metrics: the run starts at its beginning")
        tables.begin(run_dir, saved["algorithm"])
        start = Start(run_dir)
    else:
        start = _from_checkpoint(run_dir, config, seeds, like)
    if not start.complete:
        _note_resume(run_dir, saved, config, options, device, start)
    return start


def _never_began(run_dir):
    """Killed before its first checkpoint, of the initial state: then there are no metrics."""
    if checkpoints.existing(run_dir):
        return False
    metrics = run_dir / "metrics.csv"
    return not metrics.exists() or atomic_io.read(metrics, atomic_io.LARGEST).count(b"\n") <= 1


def _from_checkpoint(run_dir, config, seeds, like):
    from rljax import evaluation
    from rljax.types import NEW_LEAVES

    runs.check_network(run_dir, config)
    manifest, trees, problems = checkpoints.newest(run_dir, _check)
    before = runs.read_config(manifest)
    _check_same(config, before, seeds, manifest)
    best = None
    try:
        states = checkpoints.restore(trees["state"], like, NEW_LEAVES)
        if "best" in manifest:
            policy = like.learner._replace(opt_state=(), return_moments=None)
            best = evaluation.Best(
                **checkpoints.restore(trees["best"], {"learner": policy}, NEW_LEAVES),
                returns=np.array([*map(float, manifest["best"]["returns"])]),
                env_steps=np.array(manifest["best"]["env_steps"], int),
            )
    except ValueError as error:
        raise ValueError(f"the checkpoint is of another network or environment: {error}") from error
    for problem in problems:
        _warn(f"{problem}; the checkpoint before is used")

    updates, env_steps = manifest["updates"], manifest["env_steps"]
    progress = {name: values.number(x) for name, x in manifest["progress"].items()}
    start = Start(run_dir, updates, states, best, Progress(**progress))
    if updates >= config.num_updates and _is_completed(run_dir) and not problems:
        return dataclasses.replace(start, complete=True)
    raised = config.total_timesteps != before.total_timesteps
    if raised:
        _warn(
            f"total_timesteps raised from {before.total_timesteps:,} to"
            f" {config.total_timesteps:,}: the learning rate's schedule and the spacing of rows"
            " follow the new total"
        )
    for newer in checkpoints.existing(run_dir):
        if newer > env_steps:
            path = checkpoints.folder(run_dir, newer)
            atomic_io.remove_folder(path.with_name(f"{path.name}.aside"))
            with atomic_io.writing(path):
                path.rename(path.with_name(f"{path.name}.aside"))
    tables.cut(run_dir, manifest["tables"])
    return dataclasses.replace(start, raised=raised, in_row=not before.ends_row(updates))


def _check(path, manifest, trees):
    """That a checkpoint is whole and one of this run, with its tables.

    Raises:
        checkpoints.DamagedError: it is not.
    """
    runs.check(path, manifest, trees)
    progress = manifest["progress"]
    known = {field.name for field in dataclasses.fields(Progress)}
    lacking = {name for name, x in progress.items() if x is None} - {"last_return"}
    if lacking or not known >= set(progress):
        raise checkpoints.DamagedError(f"{path} is of no run: its progress is of another form")
    tables.check(path.parents[1], manifest["tables"])


def _is_completed(run_dir):
    try:
        return atomic_io.read_json(run_dir / "summary.json")["status"] == "completed"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _check_same(config, before, seeds, manifest):
    """That the checkpoint is of this run."""
    here, there = runs.config_record(config), runs.config_record(before)
    here, there = {**here, "seeds": seeds}, {**there, "seeds": manifest["seeds"]}
    others = other_settings(there, here)
    if others:
        raise ValueError(f"the checkpoint is of another run: it has {others}")
    if here["total_timesteps"] < there["total_timesteps"]:
        raise ValueError(
            f"total_timesteps = {here['total_timesteps']}: the checkpoint is of a run of"
            f" {there['total_timesteps']}"
        )


def _note_resume(run_dir, saved, config, options, device, start):
    """Adds this resumption to config.json, and says what is not as it was."""
    again = {"env_steps": start.updates * config.batch_size, **compared(saved, device)}
    kept = {name: getattr(options, name) for name in ("checkpoint_every", "keep_checkpoints")}
    now = {
        **saved,
        "config": runs.config_record(config),
        "run": {**saved["run"], **kept, "device": options.device},
        "resumed": [*saved.get("resumed", []), again],
    }
    atomic_io.write_json(run_dir / "config.json", now)


def compared(saved: dict, device: str) -> dict:
    """What a run that goes on does so with: versions, machine and the like. Warns of what is not as
    it was."""
    now = _provenance(device)
    then = {**saved, **(saved.get("resumed") or [{}])[-1]}
    changes = [
        f"{name} {then.get(name)} -> {now[name]}"
        for name in differing([{n: then.get(n) for n in now}, now])
        if name not in ("versions", "command_line")
    ]
    then, here = then.get("versions", {}), now["versions"]
    changes += [f"{n} {then.get(n)} -> {here.get(n)}" for n in differing([then, here])]
    if changes:
        _warn(f"not as when the run was last at work: {', '.join(changes)}: its bits may differ")
    return now


def _warn(text):
    print(f"warning: {text}", file=sys.stderr)


def default_run_dir(config: Config, algorithm: str, seed: int) -> Path:
    """A new one, named by what is run and when."""
    env = re.sub(r"[^\w.-]+", "_", config.env)
    path = Path("runs") / f"{env}__{algorithm}__{seed}__{time.strftime('%Y%m%d-%H%M%S')}"
    again = (path.with_name(f"{path.name}-{i}") for i in itertools.count(2))
    return path if not path.exists() else next(p for p in again if not p.exists())


def record(algorithm: str, config: Config, device: str, *options: Any) -> dict:
    """What config.json holds."""
    return {
        "algorithm": algorithm,
        "config": runs.config_record(config),
        "run": flags.record(*options),
        **_provenance(device),
    }


def _provenance(device):
    return {
        "versions": {"python": sys.version.split()[0], **runs.versions()},
        "git_commit": runs.git_commit(),
        "device": device,
        "processor": _processor(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "command_line": shlex.join(sys.orig_argv),
    }


def _processor():
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        if found:
            return found[1]
    return platform.processor() or platform.machine()
