"""Run directories: what a run leaves on disk.

Files are written beside their place and renamed, so that a reader, or a crash, finds the old
file or the new one and never half of one. `metrics.csv` grows by whole rows.
"""

import csv
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

METRICS = (
    "seed",
    "env_steps",
    "updates",
    "wall_seconds",
    "episodes",
    "episodic_return",
    "episodic_length",
    "policy_loss",
    "value_loss",
    "entropy",
    "explained_variance",
    "grad_norm",
    "learning_rate",
    "steps_per_second",
)
"""Columns of metrics.csv: one row per seed and log point."""

_PACKAGES = ("rljax", "jax", "jaxlib", "flax", "optax", "gymnax", "gymnasium", "numpy")


def create(run_dir: Path, config: Mapping) -> Path:
    """Makes a run directory with its config.json and an empty metrics.csv.

    Raises:
        ValueError: the directory already holds something, or cannot be written; nothing is left
            behind.
    """
    run_dir = Path(run_dir)
    name = f"run directory {str(run_dir)!r}"
    made = next((p for p in (*reversed(run_dir.parents), run_dir) if not p.exists()), None)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if any(run_dir.iterdir()):
            held = "already holds a run" if (run_dir / "config.json").exists() else "is not empty"
            raise ValueError(f"{name} {held}")
        write_json(run_dir / "config.json", config)
        write(run_dir / "metrics.csv", ",".join(METRICS).encode() + b"\n")
    except OSError as error:
        if made:
            shutil.rmtree(made, ignore_errors=True)
        raise ValueError(f"{name} cannot be written ({error.strerror})") from error
    return run_dir


def append_metrics(run_dir: Path, rows: Iterable[Mapping]) -> None:
    """Adds rows to metrics.csv, in one write. Floats keep every digit that they have."""
    text = io.StringIO()
    writer = csv.DictWriter(text, METRICS, lineterminator="\n")
    writer.writerows(rows)
    with open(run_dir / "metrics.csv", "a") as file:
        file.write(text.getvalue())


def append_evaluations(
    run_dir: Path, seeds: list[int], env_steps: int, updates: int, returns: np.ndarray
) -> None:
    """Adds an evaluation during training to evaluations.csv: one row per seed.

    Args:
        returns: [S, N] of full episodes.
    """
    path = run_dir / "evaluations.csv"
    header = "" if path.exists() else "seed,env_steps,updates,episodes,episodic_return\n"
    rows = (
        f"{seed},{env_steps},{updates},{len(row)},{row.mean()}\n"
        for seed, row in zip(seeds, returns)
    )
    with open(path, "a") as file:
        file.write(header + "".join(rows))


def read_metrics(run_dir: Path) -> dict[str, np.ndarray]:
    """The columns of metrics.csv; an empty field, such as the return where no episode ended, is
    NaN."""
    with open(Path(run_dir) / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in METRICS}


def write_json(path: Path, tree: Any) -> None:
    """Writes a JSON file, whole."""
    write(path, json.dumps(tree, indent=2, default=str).encode() + b"\n")


def write(path: Path, data: bytes) -> None:
    """Writes a file beside its place, to the disk, and renames it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def save_state(path: Path, state: Any) -> None:
    """Saves a pytree of arrays, such as an `AgentState`, as a NumPy archive without pickles.

    A leaf is named by its path in the tree; one that holds typed random keys, also by their
    kind: "path|kind".
    """
    import jax

    leaves = {}
    for name, leaf in _named_leaves(state):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            name, leaf = f"{name}|{jax.random.key_impl(leaf)}", jax.random.key_data(leaf)
        leaves[name] = np.asarray(leaf)
    archive = io.BytesIO()
    np.savez(archive, **leaves)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, archive.getvalue())


def load_state(path: Path, like: Any) -> Any:
    """Loads what `save_state` saved.

    Args:
        like: a pytree of the same structure, of arrays or `jax.ShapeDtypeStruct`s.

    Raises:
        ValueError: the file holds another state than `like`; the message names the first leaf
            that differs.
    """
    import jax

    saved = {}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            name, _, kind = key.partition("|")
            leaf = archive[key]
            saved[name] = jax.random.wrap_key_data(leaf, impl=kind) if kind else leaf
    wanted = dict(_named_leaves(like))
    for name in [*wanted, *saved]:
        here, there = (_describe(leaves.get(name)) for leaves in (saved, wanted))
        if here != there:
            raise ValueError(f"{str(path)!r} holds another state: {name} is {here}, not {there}")
    return jax.tree.structure(like).unflatten([saved[name] for name in wanted])


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
    git = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
    ]
    try:
        done = subprocess.run(git, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _named_leaves(tree):
    import jax

    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path), leaf


def _describe(leaf):
    return "absent" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"
