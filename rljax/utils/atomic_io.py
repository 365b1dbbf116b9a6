"""Files that survive a crash, a full disk and a second writer, and reading that nothing found in
their place can harm.

Functions that write, append or remove raise a `WriteError` if they cannot, and leave everything as
it was. JSON is strict: numbers that are not finite become "inf", "-inf" or "nan", as `float` reads.
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

LARGEST = 2**28  # the most bytes that are read of a JSON file, or of a table of a run
MOST_LEVELS = 100  # the deepest nesting of lists and objects in JSON that is read


NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Error numbers of `lock` on a file system without locks."""


class WriteError(OSError):
    """A file could not be written; the message says which and why."""


def write(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name, syncs it and renames it."""
    new = _temporary(path, "part")
    with writing(path):
        try:
            _write_to_disk(new, data)
            os.replace(new, path)
            sync_folder(path.parent)
        finally:
            new.unlink(missing_ok=True)


def write_json(path: Path, tree: Any) -> None:
    """Writes a tree as a JSON file, converted as by `json_bytes`."""
    write(path, json_bytes(tree, indent=2))


def json_bytes(tree: Any, indent: int | None = None) -> bytes:
    """A tree as strict JSON and a newline. Arrays of NumPy and JAX become lists, their scalars
    numbers, and what JSON has no form for, such as a path or an environment object, its `str`."""
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
    """The contents of a JSON file; raises as `read` and `parse_json` do."""
    return parse_json(read(path, LARGEST))


def parse_json(data: bytes) -> Any:
    """Parses JSON, and Infinity and NaN, which are not JSON. Raises a ValueError, of one line and
    without a file name, if it is not JSON or is nested too deeply."""
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
    """The bytes that a file has now; raises as `opened` does, or if they are more than `most`."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read(size)


def opened(path: Path) -> BinaryIO:
    """Opens a file for reading. Raises an OSError also if it is not a regular file: a pipe could
    block for ever."""
    file = open(path, "rb", opener=lambda p, how: os.open(p, how | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, _NO_FILE, str(path))
    return file


def append(path: Path, text: str) -> None:
    """Appends lines to a file: all of them or, if the disk is full, none."""
    with writing(path):
        if path.is_fifo():  # opening it would wait for a reader
            raise OSError(errno.EINVAL, _NO_FILE)
        is_new = not path.exists()
        with open(path, "ab", buffering=0) as file:
            size, data = os.fstat(file.fileno()).st_size, text.encode()
            try:
                while data:  # an almost full disk takes only a part
                    data = data[file.write(data) :]
            except OSError:
                with contextlib.suppress(OSError):
                    path.unlink() if is_new else file.truncate(size)
                raise


def write_folder(path: Path, contents: dict[str, bytes]) -> None:
    """Writes a folder of files under a temporary name, syncs it and replaces the old folder."""
    new, old = _temporary(path, "new"), _temporary(path, "old")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _clean_up(new, old)  # a killed process may have had this process's number
            new.mkdir()
            for name, data in contents.items():
                _write_to_disk(new / name, data)
            sync_folder(new)
            if path.exists():
                os.rename(path, old)
            os.rename(new, path)
            sync_folder(path.parent)
            sync_folder(path.parent.parent)
            shutil.rmtree(old, ignore_errors=True)
        except OSError:
            shutil.rmtree(new, ignore_errors=True)
            if old.exists() and not path.exists():
                os.rename(old, path)
            raise


def remove_folder(path: Path) -> None:
    """Removes a folder. Its name is free at once, however long deleting its files takes."""
    if path.exists():
        gone = _temporary(path, "gone")
        with writing(path):
            _clean_up(gone)
            os.rename(path, gone)
        shutil.rmtree(gone, ignore_errors=True)


def is_leftover(path: Path) -> bool:
    """Whether a process left this behind when it was killed in one of these functions."""
    return _TEMPORARY.fullmatch(path.name) is not None


def tidy(parent: Path) -> None:
    """Cleans up after processes killed in one of these functions; none may be writing here now."""
    if parent.is_dir():
        _clean_up(*filter(is_leftover, list(parent.iterdir())))


def _clean_up(*leftovers):
    """Restores what was being replaced if its replacement is missing, and removes the rest."""
    for left in leftovers:
        name, kind = _TEMPORARY.fullmatch(left.name).groups()
        if kind == "old" and left.exists() and not left.with_name(name).exists():
            os.rename(left, left.with_name(name))
        elif left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)


_NO_FILE = "Not a regular file"
_TEMPORARY = re.compile(r"\.(.+)\.\d+\.(part|new|old|gone)")


def _temporary(path, kind):
    return path.with_name(f".{path.name}.{os.getpid()}.{kind}")


@contextlib.contextmanager
def lock(path: Path, is_shared: bool = False) -> Iterator[None]:
    """Holds a lock file until the block, or the process, ends; if it is shared, as one of several
    processes. Raises a BlockingIOError if another process holds it, with what that wrote in it, and
    an OSError if it is not a regular file."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(path, flags, 0o666), "r+b", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, _NO_FILE, str(path))
        try:
            how = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError as error:
            text = file.read(200).decode(errors="replace")
            raise BlockingIOError(" ".join(text.split()) or "another process") from error
        with contextlib.suppress(OSError):  # the disk may be full; the lock holds anyway
            file.truncate(0)
            file.write(f"process {os.getpid()} on {os.uname().nodename}\n".encode())
        yield


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError into a WriteError that names the file."""
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
    """Syncs a folder, which makes new and renamed files in it safe."""
    descriptor = os.open(path, os.O_RDONLY)
    with contextlib.suppress(OSError):  # not every network file system offers it
        os.fsync(descriptor)
    os.close(descriptor)
