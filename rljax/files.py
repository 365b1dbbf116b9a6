"""Files written so that a crash, a full disk or a second writer damages nothing."""

import contextlib
import fcntl
import json
import os
import re
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
    beside = _beside(path, "part")
    with writing(path):
        try:
            _write_to_disk(beside, data)
            os.replace(beside, path)
            sync_folder(path.parent)
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
    with writing(path):
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
    beside, before = _beside(path, "new"), _beside(path, "old")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _settle(beside, before)  # a process that was killed can have had this one's number
            beside.mkdir()
            for name, data in contents.items():
                _write_to_disk(beside / name, data)
            sync_folder(beside)
            if path.exists():
                os.rename(path, before)
            os.rename(beside, path)
            sync_folder(path.parent)
            sync_folder(path.parent.parent)
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
        gone = _beside(path, "gone")
        with writing(path):
            _settle(gone)
            os.rename(path, gone)
        shutil.rmtree(gone, ignore_errors=True)


def is_leftover(path: Path) -> bool:
    """Whether a process that was killed in one of these functions left this behind."""
    return _BESIDE.fullmatch(path.name) is not None


def tidy(parent: Path) -> None:
    """Clears up after processes that were killed in one of these functions, and are not at work
    here now."""
    if parent.is_dir():
        _settle(*filter(is_leftover, list(parent.iterdir())))


def _settle(*leftovers):
    """What was replaced goes back to its place if nothing came there; all else is removed."""
    for left in leftovers:
        name, kind = _BESIDE.fullmatch(left.name).groups()
        if kind == "part":
            left.unlink(missing_ok=True)
        elif kind == "old" and left.exists() and not left.with_name(name).exists():
            os.rename(left, left.with_name(name))
        elif left.exists():
            shutil.rmtree(left)


_BESIDE = re.compile(r"\.(.+)\.\d+\.(part|new|old|gone)")


def _beside(path, kind):
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
        with contextlib.suppress(OSError):  # the disk may be full; the lock holds without
            file.truncate(0)
            os.write(file.fileno(), f"process {os.getpid()} on {os.uname().nodename}\n".encode())
        yield


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Makes a WriteError, with the file's name, of an OSError, which need not name it."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"{path} could not be written ({error.strerror})") from error


def _write_to_disk(path, data):
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Puts a folder's names on the disk: a new or renamed file is safe only after this."""
    descriptor = os.open(path, os.O_RDONLY)
    with contextlib.suppress(OSError):  # not every network file system offers it
        os.fsync(descriptor)
    os.close(descriptor)
