"""Run directories: what a run leaves on disk. Files are replaced whole, never half-written."""

import contextlib
import itertools
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from rljax.utils import atomic_io
from rljax.utils.lookup import differing
from rljax.utils.platform import cores

_PACKAGES = ("rljax", "jax", "jaxlib", "flax", "optax", "gymnax", "gymnasium", "numpy")


def default_path(env: Any, algorithm: str, seed: int) -> Path:
    """A new directory in runs/, named by environment, algorithm, seed and time."""
    env = re.sub(r"[^\w.-]+", "_", str(env))
    path = Path("runs") / f"{env}__{algorithm}__{seed}__{time.strftime('%Y%m%d-%H%M%S')}"
    again = (path.with_name(f"{path.name}-{i}") for i in itertools.count(2))
    return path if not path.exists() else next(p for p in again if not p.exists())


def create(run_dir: Path, record: Mapping, *tables: str, needs_locks: bool = True) -> Path:
    """Makes a run directory with its config.json and empty tables; raises ValueError, and leaves
    nothing behind, if it already holds something, cannot be written, or needs locks and has none.
    """
    run_dir = Path(run_dir)
    ours = [p for p in (*reversed(run_dir.parents), run_dir) if not p.exists()][:1]
    try:
        if not ours:
            _check_free(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        # Another process may make it at the same moment.
        with lock(run_dir, needs_locks=needs_locks):
            _check_free(run_dir)
            ours = ours or [run_dir / name for name in (".lock", "config.json", *tables)]
            atomic_io.write_json(run_dir / "config.json", record)
            for name in tables:
                atomic_io.write(run_dir / name, b"")
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
def lock(run_dir: Path, is_shared: bool = False, needs_locks: bool = True) -> Iterator[None]:
    """Keeps other processes from training in a run directory, but for those that share the lock;
    ends with the process. Raises ValueError if another process trains in it, it cannot be written,
    or, where they are needed, its file system has no locks."""
    name = f"run directory {str(run_dir)!r}"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(atomic_io.lock(Path(run_dir) / ".lock", is_shared))
        except BlockingIOError as error:
            raise ValueError(f"{name} is in use by {error}") from error
        except OSError as error:
            if needs_locks or error.errno not in atomic_io.NO_LOCKS:
                raise ValueError(f"{name} cannot be written ({error.strerror})") from error
        yield


def read_record(run_dir: Path) -> dict:
    """config.json: settings in "config", options of the run in "run". Raises ValueError if it is no
    run directory, or the file is damaged."""
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


def versions() -> dict[str, str]:
    """Of Python, and of the packages that results depend on."""
    return {"python": sys.version.split()[0], **{p: _version(p) for p in _PACKAGES}}


def provenance(device: str) -> dict:
    """What results depend on besides settings and options, for config.json."""
    return {
        "versions": versions(),
        "git_commit": _git_commit(),
        "device": device,
        "processor": _processor(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "command_line": shlex.join(sys.orig_argv),
    }


def machine(device: str) -> dict:
    """What published results depend on: `provenance`, and the cores of this process."""
    return {**provenance(device), "cores": cores()}


def warn_of_changes(saved: Mapping, now: Mapping) -> None:
    """Warns of what differs between a run's config.json and the current `provenance`."""
    then = {**saved, **(saved.get("resumed") or [{}])[-1]}
    changes = [
        f"{name} {then.get(name)} -> {now[name]}"
        for name in differing([{n: then.get(n) for n in now}, now])
        if name not in ("versions", "command_line")
    ]
    then, here = then.get("versions", {}), now["versions"]
    changes += [f"{n} {then.get(n)} -> {here.get(n)}" for n in differing([then, here])]
    if changes:
        text = f"changed since the run was last trained: {', '.join(changes)}"
        warnings.warn(f"{text}; results may not be bit-identical", stacklevel=2)


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _git_commit():
    """The commit of this package's source tree, marked "-dirty" if it is changed."""
    here = str(Path(__file__).parent)
    git = ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _processor():
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        if found:
            return found[1]
    return platform.processor() or platform.machine()
