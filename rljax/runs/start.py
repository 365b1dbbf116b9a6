"""How a run starts: in a directory of its own, or from a checkpoint."""

import contextlib
import dataclasses
import secrets
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rljax import algorithms
from rljax.loggers import tables
from rljax.runs import checkpoints, compatibility, directory, records, run, settings
from rljax.runs.best import Best
from rljax.runs.records import Progress
from rljax.runs.settings import Settings
from rljax.utils import atomic_io, values


@dataclasses.dataclass
class Training:
    """The state of a run in progress."""

    states: Any  # [S]; None where an accelerator failed: the last checkpoint has them
    updates: np.ndarray  # [S]
    progress: Progress
    last_returns: np.ndarray  # [S] episodic return of each seed's last row; NaN if it has none
    best: Any = None  # `best.Best`, if there has been an evaluation during training
    saved: int = 0  # environment steps at the last checkpoint, as it is named
    evaluation: Any = None  # the `Evaluation` of exactly these states, if all seeds had one
    status: str = "completed"  # if the run ends here
    diverged: dict[int, int] = dataclasses.field(default_factory=dict)
    """seed: update at which loss, gradient or parameters were no longer finite."""
    error: Exception | None = None  # that ended a run that failed


def _beginning(states):
    number = len(states.learner.updates)
    progress = Progress(evaluated=[0] * number)
    return Training(states, np.zeros(number, int), progress, np.full(number, np.nan))


@contextlib.contextmanager
def fresh(asked: Settings, states: Any, device: str) -> Iterator[Training]:
    """A new run, in a locked directory if the options name one; raises ValueError if that is taken
    or cannot be written."""
    from rljax import networks, rollout

    run_dir = asked.options.run_dir
    if run_dir is None:
        yield _beginning(states)
        return
    network = networks.describe(asked.config, rollout.make_env_and_network(asked.config)[0].spec)
    record = {**settings.record(asked), **directory.provenance(device), "network": network}
    record["id"] = secrets.token_hex(4)  # for trackers, in which another run may have its name
    directory.create(run_dir, record, "metrics.csv")
    with directory.lock(run_dir):
        yield _beginning(states)


@contextlib.contextmanager
def resumed(asked: Settings, states: Any, device: str) -> Iterator[Training | None]:
    """A run from its newest whole checkpoint, in its locked directory; None if it is complete.
    `states`: fresh states, for shapes and types.

    What the run wrote after that checkpoint is taken back: rows of the tables are cut off, and
    newer checkpoints, which are damaged, are renamed to `*.aside`. Raises ValueError if another
    process trains in it, no checkpoint is whole, or it has other settings.
    """
    run_dir = asked.options.run_dir
    with directory.lock(run_dir):
        try:
            training = _resume(asked, states, device)
        except atomic_io.WriteError:
            raise
        except OSError as error:
            where = error.filename or run_dir
            raise ValueError(f"{where} cannot be used to resume ({error.strerror})") from error
        yield training


def _resume(asked, states, device):
    run_dir = asked.options.run_dir
    record = directory.read_record(run_dir)
    atomic_io.tidy(run_dir)
    atomic_io.tidy(run_dir / "checkpoints")
    if _never_began(run_dir):
        _warn(f"{run_dir} has no checkpoint and no metrics: the run starts at its beginning")
        tables.cut(run_dir, {"metrics.csv": {"bytes": 0}})
        training = _beginning(states)
    else:
        training = _from_checkpoint(asked, states)
    if training:
        _note_resume(record, asked, device, training.updates)
    return training


def _never_began(run_dir):
    """Whether a run was killed before its first checkpoint, and so has no metrics."""
    if checkpoints.existing(run_dir):
        return False
    metrics = run_dir / "metrics.csv"
    if not metrics.exists():
        atomic_io.write(metrics, b"")
    return atomic_io.read(metrics, atomic_io.LARGEST).count(b"\n") <= 1


def _from_checkpoint(asked, states):
    from rljax import rollout

    run_dir, config = asked.options.run_dir, asked.config
    run.check_network(run_dir, config)
    manifest, trees, problems = checkpoints.newest(run_dir, _check)
    before = records.read_config(manifest)
    _check_same(asked, before, manifest)
    try:
        env, _ = rollout.make_env_and_network(config)
        arrays = compatibility.state(trees["state"], before, env.spec.observation)
        states = checkpoints.restore(arrays, states, compatibility.NEW_LEAVES)
        best = _best(manifest, trees, states)
    except ValueError as error:
        text = f"the checkpoint is of another network, loss or environment: {error}"
        raise ValueError(text) from error
    for problem in problems:
        _warn(f"{problem}; the checkpoint before is used")
    updates = np.array(states.learner.updates)
    progress = {n: values.number(x) for n, x in manifest["progress"].items() if n != "evaluated"}
    together = algorithms.module(asked.algorithm).in_one_program(config)
    evaluated = compatibility.evaluated(manifest, updates, config.batch_size, together)
    last_info = {n: values.number(x) for n, x in progress.pop("last_info", {}).items()}
    progress = Progress(**progress, last_info=last_info, evaluated=evaluated.tolist())
    is_done = updates.min() >= config.num_updates and not problems
    if is_done and run.read_summary(run_dir).get("status") == "completed":
        return None
    if config.total_timesteps != before.total_timesteps:
        raised = f"raised from {before.total_timesteps:,} to {config.total_timesteps:,}"
        _warn(f"total_timesteps {raised}: the learning rate's schedule follows the new total")
    _cut(run_dir, manifest)
    rows = tables.read_metrics(run_dir).groupby("seed")["episodic_return"].last()
    last_returns = np.array(rows.reindex(manifest["seeds"]))
    return Training(states, updates, progress, last_returns, best, manifest["env_steps"])


def _best(manifest, trees, states):
    if "best" not in manifest:
        return None
    policy = states.learner._replace(opt_state=(), return_moments=None)
    return Best(
        **checkpoints.restore(trees["best"], {"learner": policy}, compatibility.NEW_LEAVES),
        returns=np.array([*map(float, manifest["best"]["returns"])]),
        env_steps=np.array(manifest["best"]["env_steps"], int),
    )


def _cut(run_dir, manifest):
    """Takes back what was written after a checkpoint."""
    for newer in checkpoints.existing(run_dir):
        if newer > manifest["env_steps"]:
            path = checkpoints.folder(run_dir, newer)
            aside = path.with_name(f"{path.name}.aside")
            atomic_io.remove_folder(aside)
            with atomic_io.writing(path):
                path.rename(aside)
    tables.cut(run_dir, manifest["tables"])


def _check(path: Path, manifest, trees):
    """Raises DamagedError unless a checkpoint is of a run, and of its tables."""
    records.check(path, manifest, trees)
    tables.check(path.parents[1], manifest["tables"])


def _check_same(asked, before, manifest):
    """Raises ValueError if the checkpoint is of another run."""
    here = {**records.comparable(asked.config), "seeds": asked.options.seeds}
    there = {**records.comparable(before), "seeds": manifest["seeds"]}
    if others := settings.others(there, here, "total_timesteps"):
        raise ValueError(f"the checkpoint is of another run: it has {others}")
    now, then = asked.config.total_timesteps, before.total_timesteps
    if now < then:
        raise ValueError(f"total_timesteps = {now}: the checkpoint is of a run of {then}")


def _note_resume(record, asked, device, updates):
    """Adds this resumption to config.json, and warns of what has changed."""
    now, options = directory.provenance(device), asked.options
    directory.warn_of_changes(record, now)
    again = {"env_steps": int(updates.max()) * asked.config.batch_size, **now}
    names = ("checkpoint_every", "keep_checkpoints", "stop_at_return", "device", "log_interval")
    names += ("log",)
    record = {
        **record,
        "config": records.config_record(asked.config),
        "run": {**record["run"], **{name: getattr(options, name) for name in names}},
        "resumed": [*record.get("resumed", []), again],
    }
    atomic_io.write_json(options.run_dir / "config.json", record)


def _warn(text):
    warnings.warn(text, stacklevel=2)
