"""What carries messages and parameters between processes of a machine. Neither knows what is in
them. `network` is the same between machines.

There are no locks that processes share: one that is killed while it holds one would block the
others for ever. A queue has one writer and one reader, and parameters are read without waiting.
"""

import array
import fcntl
import os
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import numpy as np

ROOM = 1  # messages of a writer that its reader may not have taken yet; with more it waits
HEADER = struct.Struct("=II")  # before a message: its bytes and its kind


class Stopped(Exception):  # noqa: N818  no error: the order to stop
    """The reader of a queue is gone, or has told its writer to stop."""


class Queue:
    """The writer's end of a bounded queue on a `multiprocessing.Pipe`, for a worker.

    `multiprocessing.Queue` writes in a thread, some time after `put` has returned, and a
    `SimpleQueue` has a lock; of neither can the reader tell that a writer died within a message.
    """

    def __init__(self, pipe: Connection, grants: Connection):
        """`grants`: from the reader; a byte is a grant, and its end the order to stop."""
        self.pipe, self.grants = pipe, grants
        os.set_blocking(pipe.fileno(), False)
        self.room = select.poll()
        self.room.register(pipe.fileno(), select.POLLOUT)
        self.room.register(grants.fileno(), select.POLLHUP)
        self.order = select.poll()  # kept: `Connection.poll` makes one at each call
        self.order.register(grants.fileno(), select.POLLHUP)

    def is_stopped(self) -> bool:
        """Whether the reader has told its writer to stop."""
        return bool(self.order.poll(0))

    def take_grant(self) -> None:
        """Waits for a grant of the reader, and uses it up. Raises `Stopped`."""
        if not os.read(self.grants.fileno(), 1):
            raise Stopped

    def put(self, kind: int, message: memoryview | bytes) -> float:
        """Writes all of a message into the pipe, where the reader gets it even if this process
        ends; gives the seconds that it waited for room. Raises `Stopped`, perhaps half-way."""
        message = memoryview(message).cast("B")
        header = HEADER.pack(len(message), kind)
        rest, waited = [header, message], 0.0
        while rest:
            try:
                written = os.writev(self.pipe.fileno(), rest)
            except BlockingIOError:
                begun = time.perf_counter()
                if any(descriptor == self.grants.fileno() for descriptor, _ in self.room.poll()):
                    raise Stopped from None
                waited += time.perf_counter() - begun
                continue
            except BrokenPipeError:
                raise Stopped from None
            while rest and written >= len(rest[0]):
                written -= len(rest.pop(0))
            if rest:
                rest[0] = memoryview(rest[0])[written:]
        return waited


class Reader:
    """The reader's end of a `Queue`, of messages of `usual` and at the most `longest` bytes. It
    never waits: a writer that stops in the middle of a message delays nobody else's."""

    def __init__(self, pipe: Connection | socket.socket, usual: int, longest: int):
        self.pipe, self.longest = pipe, longest
        self.fileno, self.close = pipe.fileno, pipe.close
        self.ended = self.malformed = False
        os.set_blocking(pipe.fileno(), False)
        self.buffer = bytearray(2 * (longest + HEADER.size) + 2**16)
        self.start = self.end = 0
        if isinstance(pipe, Connection):  # of a socket its writer bounds the messages
            _resize(pipe.fileno(), ROOM * (usual + HEADER.size))

    def get(self) -> list[tuple[int, memoryview]]:
        """The messages that are there, as (kind, bytes); the bytes are valid until the next call.
        Sets `ended` where the writer is dead, whose half message is dropped, and `malformed` where
        a message is longer than the longest: what follows it cannot be told apart."""
        view = memoryview(self.buffer)
        if self.start == self.end or len(view) - self.start < HEADER.size + self.longest:
            # What has come moves to the front, as there is no room behind it for all of the rest.
            # At every call would be as often as a large message has parts.
            size = self.end - self.start
            self.buffer[:size] = self.buffer[self.start : self.end]
            self.start, self.end = 0, size
        try:
            count = os.readv(self.pipe.fileno(), [view[self.end :]])
            self.ended = count == 0
            self.end += count
        except BlockingIOError:
            pass
        except OSError:  # of a connection that broke
            self.ended = True
        messages = []
        while self.end - self.start >= HEADER.size:
            length, kind = HEADER.unpack_from(view, self.start)
            if length > self.longest:
                self.malformed = True
                break
            begin = self.start + HEADER.size
            if begin + length > self.end:
                break
            messages.append((kind, view[begin : begin + length]))
            self.start = begin + length
        return messages

    def take(self, is_dead: bool) -> Iterator[tuple[int, memoryview]]:
        """The messages that `get` gives; of a dead writer, until there are no more."""
        while got := self.get():
            yield from got
            if not is_dead:
                return

    def waiting(self) -> int:
        """Bytes that are in the pipe."""
        found = array.array("i", [0])
        fcntl.ioctl(self.pipe.fileno(), termios.FIONREAD, found)
        return found[0]


def _resize(descriptor, size):
    """Makes a pipe of this size, a power of two, or of a half, a quarter, ... that is allowed."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, size)
    except OSError:
        if size // 2 > fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ):  # else it stays as it is
            _resize(descriptor, size // 2)


class SharedParameters:
    """The newest parameters, in memory that all processes see: one writes, any number read.

    Versions go round a few slots, and the counter is moved when a slot is whole. A reader copies
    the newest slot and looks at the counter again: unless the writer has come round meanwhile,
    which takes it several versions, the copy is of one version. Nobody waits, and a process killed
    at any moment blocks nobody. The memory has no name, so that nothing is left to remove.
    """

    SLOTS = 4

    def __init__(self, context, size: int, memory=None):
        self.size, self.order = size, threading.Lock()
        self.memory = memory or context.RawArray("b", 64 + self.SLOTS * size * 4)
        self.version = np.frombuffer(self.memory, np.int64, 1)
        slots = np.frombuffer(self.memory, np.float32, self.SLOTS * size, 64)
        self.slots = slots.reshape(self.SLOTS, size)

    def __reduce__(self):
        return SharedParameters, (None, self.size, self.memory)

    def publish(self, version: int, vector: np.ndarray) -> None:
        """Makes a vector the newest. Versions are published in order, without gaps."""
        self.slots[version % self.SLOTS] = vector
        self._fence()
        self.version[0] = version

    def read(self, into: np.ndarray) -> int:
        """Copies the newest vector; its version."""
        while True:
            version = int(self.version[0])
            self._fence()
            into[:] = self.slots[version % self.SLOTS]
            self._fence()
            if int(self.version[0]) - version < self.SLOTS - 1:
                return version

    def _fence(self):
        """Keeps memory accesses in order, as any lock does, on CPUs that would reorder them."""
        with self.order:
            pass
