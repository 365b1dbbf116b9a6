"""Processes on other nodes of a cluster: what they take over from the one that starts them, and
whether they may work for it. Needs no JAX."""

import hashlib
import os
import sys
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

_TAKEN_OVER = ("JAX_", "MUJOCO_", "SDL_", "XLA_")


class Origin(NamedTuple):
    """What such a process must know of the one that starts it."""

    environment: Mapping[str, str]  # variables that it takes over; others are its node's
    path: list[str]  # where it finds modules
    versions: Mapping[str, str]  # that must be the same


def origin() -> Origin:
    """That of this process."""
    variables = {k: value for k, value in os.environ.items() if k.startswith(_TAKEN_OVER)}
    return Origin(variables, sys.path, versions())


def versions() -> dict[str, str]:
    """By name, the versions that must be the same on all nodes."""
    return {
        "rljax": f"{metadata.version('rljax')} (source {_source()})",
        "JAX": metadata.version("jax"),
        "NumPy": metadata.version("numpy"),
    }


@cache
def _source():
    """A few digits that tell one state of this package's source from another."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def take_over(origin: Origin) -> str:
    """First in a process on another node, before JAX is imported; what is not as it must be, in a
    line, empty if all is."""
    os.environ.update(origin.environment)
    sys.path.extend(folder for folder in origin.path if folder not in sys.path)
    pairs = [(name, here, origin.versions[name]) for name, here in versions().items()]
    parts = [f"{name} {here}, not {there}" for name, here, there in pairs if here != there]
    return f"its node has {', '.join(parts)} as the main process" if parts else ""
