"""Files written so that a crash, a full disk or a second writer damages nothing."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class WriteError(OSError):
    """A file could not be written, and is as it was before; the message says which and why."""


def write(path: Path, data: bytes) -> None:
    """Writes a file beside its place, to the disk, and renames it.

    Raises:
        WriteError: the disk is full, or the like.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with _writing(path):
        try:
            _write_to_disk(beside, data)
            os.replace(beside, path)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise


def write_json(path: Path, tree: Any) -> None:
    """Writes a JSON file, whole."""
    write(path, json.dumps(tree, indent=2, default=str).encode() + b"\n")


def append(path: Path, text: str) -> None:
    """Adds lines to a file: all of them or, where the disk is full, none.

    Raises:
        WriteError: the disk is full, or the like.
    """
    with _writing(path):
        is_new = not path.exists()
        with open(path, "ab", buffering=0) as file:
            size, data = os.fstat(file.fileno()).st_size, text.encode()
            try:
                while data:  # an almost full disk takes a part first
                    data = data[file.write(data) :]
            except OSError:
                with contextlib.suppress(OSError):
                    path.unlink() if is_new else file.truncate(size)
                raise


def write_folder(path: Path, contents: dict[str, bytes]) -> None:
    """Writes a folder of files beside its place, to the disk, and renames it; one that is there
    already is replaced.

    Raises:
        WriteError: the disk is full, or the like; the folder is as it was before.
    """
    beside, before = _hidden(path, "new"), _hidden(path, "old")
    with _writing(path):
        try:
            beside.mkdir(parents=True)
            for name, data in contents.items():
                _write_to_disk(beside / name, data)
            _sync_folder(beside)
            if path.exists():
                os.rename(path, before)
            os.rename(beside, path)
            _sync_folder(path.parent)
            shutil.rmtree(before, ignore_errors=True)
        except OSError:
            shutil.rmtree(beside, ignore_errors=True)
            if before.exists() and not path.exists():
                os.rename(before, path)
            raise


def remove_folder(path: Path) -> None:
    """Removes a folder: whole at once under its name, however long deleting takes.

    Raises:
        WriteError: it is not ours to remove, or the like.
    """
    if path.exists():
        with _writing(path):
            os.rename(path, _hidden(path, "gone"))
        shutil.rmtree(_hidden(path, "gone"), ignore_errors=True)


def tidy(parent: Path) -> None:
    """Clears up after a process that was killed while it wrote or removed something here."""
    for left in parent.glob(".*.*"):
        kind = left.suffix[1:]
        place = parent / left.name[1:].rsplit(".", 2)[0]
        if kind.isdecimal():
            left.unlink()
        elif kind == "old" and not place.exists():
            os.rename(left, place)
        elif kind in ("new", "old", "gone"):
            shutil.rmtree(left)


def _hidden(path, kind):
    return path.with_name(f".{path.name}.{os.getpid()}.{kind}")


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Holds a lock file for as long as the block, or the process, lives: a killed process holds
    nothing.

    Raises:
        BlockingIOError: another process holds it; the message is what that process wrote in it.
    """
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise BlockingIOError(file.read().strip()) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        file.flush()
        yield


@contextlib.contextmanager
def _writing(path):
    """Errors of writing do not name their file by themselves."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path} could not be written ({error.strerror})") from error


def _write_to_disk(path, data):
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path):
    """A renamed or new file is on the disk for good only after this."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
