"""Files written so that a crash, a full disk or a second writer damages nothing, and read so that
nothing in their place, whatever it is, does harm.

JSON is valid JSON: a number that is not finite is its name, "inf", "-inf" or "nan", as `float`
reads it.
"""

import contextlib
import errno
import fcntl
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

LARGEST = 2**28
"""Bytes of a JSON file, or of a table of a run, that is read."""
MOST_LEVELS = 100
"""Of lists and objects within one another, in JSON that is read."""


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
    """Writes a JSON file, whole, as `json_bytes` has it.

    Raises:
        WriteError: as `write` does.
    """
    write(path, json_bytes(tree, indent=2))


def json_bytes(tree: Any, indent: int | None = None) -> bytes:
    """A tree as JSON that any reader takes, and a line's end.

    NumPy's and JAX's arrays and scalars are lists and numbers. What JSON has no form for, such as
    a path, or an environment that was given as an object, is `str` of it.
    """
    return json.dumps(_plain(tree), indent=indent, allow_nan=False).encode() + b"\n"


def _plain(tree):
    if isinstance(tree, Mapping):
        return {str(name): _plain(inner) for name, inner in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(inner) for inner in tree]
    if isinstance(tree, float) and not math.isfinite(tree):
        return str(float(tree))
    if tree is None or isinstance(tree, str | bool | int | float):
        return tree
    if hasattr(tree, "dtype") and hasattr(tree, "tolist"):
        return _plain(tree.tolist())
    return str(tree)


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: as `read` does.
        ValueError: it is no JSON, or nested too deeply; in one line, without the file's name.
    """
    return parse_json(read(path, LARGEST))


def parse_json(data: bytes) -> Any:
    """What JSON says. Infinity and NaN, which are none, are taken for the numbers that they name.

    Raises:
        ValueError: as `read_json` does.
    """
    try:
        tree = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [tree] if isinstance(tree, dict | list) else []
    for _ in range(MOST_LEVELS):
        if not level:
            return tree
        inner = (x.values() if isinstance(x, dict) else x for x in level)
        level = [x for each in inner for x in each if isinstance(x, dict | list)]
    raise ValueError("it is nested too deeply")


def read(path: Path, most: int | None = None) -> bytes:
    """The bytes that a file has now, if it is a regular one.

    Raises:
        OSError: there is none, it cannot be read, it is a folder or a pipe or the like, or it has
            more bytes than `most`.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read(size)


def opened(path: Path) -> BinaryIO:
    """A regular file, open for reading; for a pipe's other end one could wait for ever.

    Raises:
        OSError: as `read` does.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, _NO_FILE, str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def append(path: Path, text: str) -> None:
    """Adds lines to a file: all of them or, where the disk is full, none.

    Raises:
        WriteError: the disk is full, or the like.
    """
    with writing(path):
        if path.is_fifo():  # opening it would wait for a reader
            raise OSError(errno.EINVAL, _NO_FILE)
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
        if kind == "old" and left.exists() and not left.with_name(name).exists():
            os.rename(left, left.with_name(name))
        elif left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)


_NO_FILE = "Not a regular file"
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
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(path, flags, 0o666), "r+b", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, _NO_FILE, str(path))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            text = file.read(200).decode(errors="replace")
            raise BlockingIOError(" ".join(text.split()) or "another process") from error
        with contextlib.suppress(OSError):  # the disk may be full; the lock holds without
            file.truncate(0)
            file.write(f"process {os.getpid()} on {os.uname().nodename}\n".encode())
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
