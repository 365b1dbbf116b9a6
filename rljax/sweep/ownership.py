"""Claims of processes, also on several machines, that share a folder: each claim has one owner at a
time, until that gives it back or ends.

    NAME/alive     of each process: locked by it while it lives, with a count that it raises
    claims/WHAT.N  of each claim: made by its owner, with its name; N counts the owners that ended

Creating a file is what claims, as a share makes a new file for one process alone. The lock tells
that the owner lives, and is gone at once when it ends. Not every share hands locks from machine to
machine, and some have none: an owner on another machine, whose lock was never found held, has ended
when its count stands still for `SILENT` seconds.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from rljax.utils import atomic_io

BEAT = 5.0  # seconds between two counts
SILENT = 60.0  # seconds without a count after which an owner has ended


@contextlib.contextmanager
def claimant(folder: Path) -> Iterator["Claimant"]:
    """This process as one that claims in a folder, which is made; its claims end with the block.
    Raises WriteError if nothing can be written there."""
    name = re.sub(r"[^\w-]+", "_", os.uname().nodename)[:40]
    name = f"{name}-{os.getpid()}-{secrets.token_hex(4)}"
    alive = folder / name / "alive"
    with contextlib.ExitStack() as stack:
        with atomic_io.writing(alive):
            (folder / "claims").mkdir(parents=True, exist_ok=True)
            alive.parent.mkdir()
            file = stack.enter_context(open(alive, "w+b", buffering=0))  # which no child inherits
            with contextlib.suppress(OSError):  # there are no locks: the count has to do
                fcntl.flock(file, fcntl.LOCK_EX)
            _beat(file, 0)
        ended = threading.Event()
        beating = threading.Thread(target=_keep_beating, args=(file, ended), daemon=True)
        beating.start()
        found = Claimant(folder, name)
        try:
            yield found
        finally:
            ended.set()
            beating.join()
            with contextlib.suppress(OSError):  # it has ended by its lock, then
                found.release(list(found.mine))
                alive.unlink()


class Claimant:
    """A process that claims."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.claims, self.name = folder, folder / "claims", name
        self.mine: dict[str, int] = {}  # claims of this process, and how many owners ended before
        self._owners: dict[str, str] = {}  # by the names of their claims' files
        self._counts: dict[str, tuple[bytes, float]] = {}  # the last, and when it was new
        self._locked: set[str] = set()  # whose lock was found held from here

    def claim(self, whats: Iterable[str]) -> list[str]:
        """Those of these claims that are this process's from now on: they had no living owner.
        Raises WriteError if nothing can be written."""
        newest, taken = self._newest(), []
        for what in whats:
            number = newest.get(what, -1)
            if number >= 0 and self._is_owned(what, number):
                continue
            if self._create(what, number + 1):
                self.mine[what] = number + 1
                taken.append(what)
        return taken

    def release(self, whats: Iterable[str]) -> None:
        """Gives claims back."""
        for what in whats:
            for number in range(self.mine.pop(what, -1) + 1):
                (self.claims / f"{what}.{number}").unlink(missing_ok=True)

    def owned(self) -> set[str]:
        """The claims that have a living owner, this process's as well."""
        return {what for what, number in self._newest().items() if self._is_owned(what, number)}

    def is_alive(self, name: str) -> bool:
        """Whether the process of this name lives."""
        if name == self.name:
            return True
        path = self.folder / name / "alive"
        try:
            count = atomic_io.read(path, 1000)
            why_not = _try_lock(path)
        except FileNotFoundError:
            return False
        except OSError:  # a share that is away for a moment
            count, why_not = b"", None
        if why_not == errno.EAGAIN:
            self._locked.add(name)
            return True
        is_here = count.split()[1:2] == [_machine()]
        if why_not == 0 and (is_here or name in self._locked):
            return False
        return not self._is_silent(name, count)

    def _newest(self):
        """Of each claim the number of its newest file."""
        newest = {}
        for name in os.listdir(self.claims):
            what, _, number = name.rpartition(".")
            if what and number.isdigit():
                newest[what] = max(newest.get(what, -1), int(number))
        return newest

    def _is_owned(self, what, number):
        file = f"{what}.{number}"
        if file not in self._owners:
            try:
                owner = atomic_io.read(self.claims / file, 1000).decode(errors="replace")
            except OSError:  # given back a moment ago
                return False
            if not owner:  # between its making and its writing
                return not self._is_silent(file, b"")
            self._owners[file] = owner
        return self.is_alive(self._owners[file])

    def _create(self, what, number):
        """Whether the file is this process's."""
        path = self.claims / f"{what}.{number}"
        with atomic_io.writing(path):
            try:
                with open(path, "xb") as file:
                    file.write(self.name.encode())
            except FileExistsError:
                return False
        self._owners[path.name] = self.name
        return True

    def _is_silent(self, name, count):
        before, since = self._counts.get(name, (None, 0.0))
        now = time.monotonic()
        if count != before:
            self._counts[name] = count, now
            return False
        return now - since > SILENT


def _try_lock(path):
    """0 if a lock is to be had, else why not, as an error number. It is a shared one: others that
    ask at the same moment have it as well, and take nobody for alive."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return 0
    except BlockingIOError:
        return errno.EAGAIN
    except FileNotFoundError:
        raise
    except OSError as error:
        return error.errno


def _keep_beating(file, ended):
    count = 0
    while not ended.wait(BEAT):
        count += 1
        with contextlib.suppress(OSError):  # a full disk; the lock holds anyway
            _beat(file, count)


def _beat(file, count):
    """Lines of one length, so that a reader never finds a half of two."""
    os.pwrite(file.fileno(), b"%012d %s\n" % (count, _machine()), 0)
    os.fsync(file.fileno())  # to the share


def _machine():
    """Of this running kernel, in which locks are seen by all."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    return os.uname().nodename.encode()
