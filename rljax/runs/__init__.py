"""Run directories: what a run leaves on disk, and how to take it up again.

Files are written whole: a reader, or a crash, finds the old file or the new one and never half
of one.
"""

import contextlib
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax.config import Config
from rljax.loggers import tables
from rljax.runs import checkpoints
from rljax.runs.records import check, config_record, read_config
from rljax.utils import atomic_io

__all__ = [
    "Saved",
    "check",
    "config_record",
    "create",
    "export_params",
    "git_commit",
    "load",
    "load_policy",
    "lock",
    "read_config",
    "read_record",
    "versions",
]

_PACKAGES = ("rljax", "jax", "jaxlib", "flax", "optax", "gymnax", "gymnasium", "numpy")


class Saved(NamedTuple):
    """A run as it was saved."""

    config: Config
    metrics: Any
    """metrics.csv as a `pandas.DataFrame`."""
    seeds: list[int]
    env_steps: list[int]
    """[S] of each seed at the checkpoint."""
    state: dict
    """The algorithm's state of all seeds, as nested dicts of NumPy arrays [S, ...]; of the best
    checkpoint only what its policy needs: {"learner": {"params": ...}}."""


def create(run_dir: Path, record: Mapping) -> Path:
    """Makes a run directory with its config.json and, of a training run, an empty metrics.csv.

    Raises:
        ValueError: the directory already holds something, or cannot be written; nothing is left
            behind.
    """
    run_dir = Path(run_dir)
    ours = [p for p in (*reversed(run_dir.parents), run_dir) if not p.exists()][:1]
    try:
        if not ours:
            _check_free(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        with lock(run_dir):  # another process may make it at the same moment
            _check_free(run_dir)
            ours = ours or [run_dir / name for name in (".lock", "config.json", "metrics.csv")]
            atomic_io.write_json(run_dir / "config.json", record)
            if record.get("algorithm") != "sweep":
                tables.begin(run_dir, record.get("algorithm", "a2c"))
    except OSError as error:
        for left in ours:
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            elif left.exists():
                left.unlink()
        why = error.strerror or error
        raise ValueError(f"run directory {str(run_dir)!r} cannot be written ({why})") from error
    return run_dir


def _check_free(run_dir):
    there = [path for path in run_dir.iterdir() if path.name != ".lock"]
    if not all(atomic_io.is_leftover(path) for path in there):
        held = "already holds a run" if (run_dir / "config.json").exists() else "is not empty"
        raise ValueError(f"run directory {str(run_dir)!r} {held}")


@contextlib.contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Keeps other processes from training in a run directory. It ends with the process, however
    that ends.

    Raises:
        ValueError: another process trains in it, or it cannot be written.
    """
    name = f"run directory {str(run_dir)!r}"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(atomic_io.lock(Path(run_dir) / ".lock"))
        except BlockingIOError as error:
            raise ValueError(f"{name} is in use by {error}") from error
        except OSError as error:
            raise ValueError(f"{name} cannot be written ({error.strerror})") from error
        yield


def read_record(run_dir: Path) -> dict:
    """config.json: the settings are in its "config", the options of the run in its "run".

    Raises:
        ValueError: it is no run directory, or the file is damaged.
    """
    path = Path(run_dir) / "config.json"
    try:
        record = atomic_io.read_json(path)
    except OSError as error:
        what = "is no run directory" if Path(run_dir).is_dir() else "is no directory"
        raise ValueError(f"{str(run_dir)!r} {what}: {path} ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is damaged: {error}") from error
    for part in ("config", "run"):
        if not isinstance(record, dict) or not isinstance(record.get(part), dict):
            raise ValueError(f"{str(path)!r} is of no run: it has no {part!r}")
    resumed = record.get("resumed", [])
    if not isinstance(resumed, list) or not all(isinstance(again, dict) for again in resumed):
        raise ValueError(f"{str(path)!r} is damaged: its 'resumed' is no list of objects")
    if not all(isinstance(x.get("versions", {}), dict) for x in (record, *resumed)):
        raise ValueError(f"{str(path)!r} is damaged: its 'versions' is no object")
    return record


def load(run_dir: Path, checkpoint: str | int = "last") -> Saved:
    """A run: its settings, its metrics, and the state that a checkpoint holds.

    Args:
        checkpoint: "last", "best" (of each seed what did best in the evaluations during
            training) or the environment steps of one.

    Raises:
        ValueError: there is no such run or checkpoint, or it is not whole. Where the newest is
            damaged, "last" and "best" take the one before and warn.
    """
    run_dir = Path(run_dir)
    read_record(run_dir)
    if checkpoint in ("last", "best"):
        manifest, trees, problems = checkpoints.newest(run_dir, check)
        for problem in problems:
            warnings.warn(f"{problem}; the one before is used", stacklevel=2)
    else:
        path = _chosen(run_dir, checkpoint)
        manifest, trees = checkpoints.load(path)
        check(path, manifest, trees)
    config = read_config(manifest)
    state = checkpoints.nest(trees["state"])
    env_steps = [int(n) * config.batch_size for n in state["learner"]["updates"]]
    if checkpoint == "best":
        if "best" not in trees:
            raise ValueError(
                f"{str(run_dir)!r} has no checkpoint 'best': it was not evaluated in training"
                " (--eval-every)"
            )
        env_steps = manifest["best"]["env_steps"]
        state = checkpoints.nest(trees["best"])
    return Saved(config, tables.read_metrics(run_dir), manifest["seeds"], env_steps, state)


def check_network(run_dir: Path, config: Config) -> None:
    """That observations are seen, and the network is chosen, as when a run was trained.

    Raises:
        ValueError: the record has it otherwise; or the run is older than such records, and its
            observations were not divided by 255, as they would be now.
        ValueError, TypeError: as `rollout.make_agent` does.
    """
    from rljax import networks, rollout
    from rljax.envs import spaces
    from rljax.envs.host_envs import HostEnv

    env, _ = rollout.make_env_and_network(config)
    now, then = networks.describe(config, env.spec), read_record(run_dir).get("network")
    if then is not None and then != now:
        raise ValueError(
            f"{str(run_dir)!r} was trained with the network {then}, which is now {now}"
        )
    if then is None and isinstance(env, HostEnv) and spaces.is_scaled_anew(env.declared[0]):
        raise ValueError(
            f"{str(run_dir)!r} was trained by an earlier version, which did not divide observations"
            " from 0 to 255 by 255 where they are no bytes; give the environment other bounds"
        )


def load_policy(
    run_dir: Path,
    checkpoint: str | int = "last",
    seed: int | None = None,
    greedy: bool = False,
) -> Callable:
    """A run's policy as a plain function `policy(obs, key) -> action`, as `evaluate.policy` gives
    it.

    The environment and the network are made anew from the run's config: those that it names as
    'package.module:attribute' are imported.

    Args:
        checkpoint: as in `load`.
        seed: which of the run's; by default the first.
        greedy: the distribution's mode rather than a sample.

    Raises:
        ValueError: as `load` does; the run has no such seed; its network is another one now.
    """
    import jax

    from rljax import evaluation

    saved = load(run_dir, checkpoint)
    index = _index(saved, seed)
    check_network(run_dir, saved.config)
    learner = jax.tree.map(lambda leaf: leaf[index], evaluation.learners(saved.config, saved.state))
    return evaluation.policy(saved.config, learner, greedy)


def export_params(
    run_dir: Path, path: Path, checkpoint: str | int = "last", seed: int | None = None
) -> Path:
    """Writes a policy's parameters as safetensors, and the run's config beside them as JSON.

    The arrays are named by their paths, joined by dots: "params.params.actor_head.kernel". Where
    observations are standardised, "obs_moments.mean" and "obs_moments.var" are with them.

    Args:
        path: such as "policy.safetensors"; the config goes to "policy.json" then.
        checkpoint, seed: as in `load_policy`.

    Raises:
        ValueError: as `load_policy` does.
        WriteError: a file could not be written.
    """
    import safetensors.numpy

    path = Path(path)
    if path.suffix == ".json":
        raise ValueError(f"path = {str(path)!r}: must not end in .json, where the config goes")
    saved = load(run_dir, checkpoint)
    index = _index(saved, seed)
    learner = {name: saved.state["learner"].get(name) for name in ("params", "obs_moments")}
    arrays = {name: np.array(leaf[index]) for name, leaf in _joined(learner)}
    record = {
        "config": config_record(saved.config),
        "seed": saved.seeds[index],
        "env_steps": saved.env_steps[index],
    }
    atomic_io.write(path, safetensors.numpy.save(arrays))
    atomic_io.write_json(path.with_suffix(".json"), record)
    return path


def versions() -> dict[str, str]:
    """The versions of the packages that a result depends on."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_commit() -> str | None:
    """The commit of the source tree that this package runs from, marked where it is changed."""
    here = str(Path(__file__).parent)
    git = ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _chosen(run_dir, checkpoint):
    if not str(checkpoint).isdecimal() or int(checkpoint) not in checkpoints.existing(run_dir):
        raise ValueError(
            f"{str(run_dir)!r} has no checkpoint {checkpoint!r}: there are {_listed(run_dir)}"
        )
    return checkpoints.folder(run_dir, int(checkpoint))


def _listed(run_dir):
    steps = checkpoints.existing(run_dir)
    best = ["best"] * any((run_dir / "checkpoints").glob("*/best.safetensors"))
    return ", ".join(["last", *best, *map(str, steps)]) if steps else "none"


def _index(saved, seed):
    if seed is None:
        return 0
    if seed not in saved.seeds:
        raise ValueError(f"seed = {seed}: the run has {', '.join(map(str, saved.seeds))}")
    return saved.seeds.index(seed)


def _joined(tree, above=()):
    """(name, leaf) of nested dicts."""
    for name, inner in tree.items():
        if isinstance(inner, Mapping):
            yield from _joined(inner, (*above, name))
        elif inner is not None:
            yield ".".join((*above, name)), inner
