"""What carries messages and parameters between machines, over TCP. As in `transport`, neither knows
what is in them, and nothing waits for a process that is slow or dead.

    worker  --- messages, ROOM at the most on their way ---> holder
    worker  <-- grants, to push or to take a turn; where its node has the parameters --- holder
    relay   <-- the newest parameters, one version on its way --- holder

A relay is a process on a node that writes parameters into memory, from which all workers of the
node read: a version is sent once to a node, and not at all to the holder's own, whose workers read
the holder's memory. A relay that is slow misses versions.

Connections are those of `utils.connections`; nothing that comes is ever unpickled.
"""

import contextlib
import mmap
import os
import select
import socket
import struct
import threading
import time
from collections import deque

import numpy as np

from rljax.a3c.transport import HEADER, SharedParameters, Stopped

ROOM = 2  # as `transport.ROOM`; a grant is on its way for longer
GRANT, MEMORY = range(2)
"""Kinds of orders to a worker, with two numbers: a grant, and the version of the parameters that it
needs; where they are, a process and its descriptor."""
_ORDER = struct.Struct("=Bqq")  # kind, numbers
_VERSION = struct.Struct("=q")  # before parameters


# A worker's end


class Link:
    """The worker's end: a bounded queue as `transport.Queue`."""

    def __init__(self, sock: socket.socket):
        self.sock, self.ended = sock, False
        # Versions of the parameters: that grants need, and that the last one that was taken does.
        self.grants, self.least = deque(), 0
        self.place: tuple[int, int] | None = None  # of the node's parameters
        self.orders = b""

    def is_stopped(self) -> bool:
        """Whether the holder has closed the connection, which is its order to stop."""
        self._take(socket.MSG_DONTWAIT)
        return self.ended

    def put(self, kind: int, message: memoryview | bytes) -> float:
        """As `transport.Queue.put`."""
        message = memoryview(message).cast("B")
        header = HEADER.pack(len(message), kind)
        try:
            return _send(self.sock, header, message)
        except OSError:
            raise Stopped from None

    def take_grant(self) -> None:
        """As `transport.Queue.take_grant`."""
        while not self.grants:
            self._take()
            if self.ended:
                raise Stopped
        self.least = self.grants.popleft()

    def memory(self) -> tuple[int, int]:
        """Where the node's parameters are, as `NodeMemory.place`; raises `Stopped`."""
        while self.place is None:
            self._take()
            if self.ended:
                raise Stopped
        return self.place

    def _take(self, flags=0):
        """Takes the orders that have come; waits for one unless the flags say otherwise."""
        if self.ended:
            return
        try:
            part = self.sock.recv(4096, flags)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        self.ended, orders = not part, self.orders + part
        whole = len(orders) - len(orders) % _ORDER.size
        self.orders = orders[whole:]
        for kind, *numbers in _ORDER.iter_unpack(orders[:whole]):
            if kind == GRANT:
                self.grants.append(numbers[0])
            elif kind == MEMORY:
                self.place = tuple(numbers)


def _send(sock, header, message):
    """Sends all of it; the seconds that it waited for room."""
    try:
        sent = sock.sendmsg([header, message], [], socket.MSG_DONTWAIT)
    except BlockingIOError:
        sent = 0
    if sent == len(header) + len(message):
        return 0.0
    begun = time.perf_counter()
    sock.sendall(header[sent:])
    sock.sendall(message[max(0, sent - len(header)) :])
    return time.perf_counter() - begun


class MappedParameters:
    """The newest parameters in the memory of the worker's node, as `transport.SharedParameters`."""

    def __init__(self, link: Link, size: int):
        self.link, self.size = link, size
        self.place = self.shared = None
        self.found = np.empty(size + 2, np.float32)

    def read(self, into: np.ndarray) -> int:
        """Copies the newest vector; its version. Waits for the first, and for the version that the
        grant needs, which may be on its way to this node; raises `Stopped` meanwhile."""
        while (version := self._read()) < self.link.least:
            if self.link.is_stopped():
                raise Stopped
            time.sleep(1e-4)
        into[:] = self.found[:-2]
        return version

    def _read(self):
        if self.link.memory() != self.place:
            self.place = self.link.place
            self.shared = _mapped(self.size, self.place)
        self.shared.read(self.found)
        return int(self.found[-2:].view(np.int64)[0])


class NodeMemory:
    """Memory for parameters, which processes of a node share. It has no name, so that nothing is
    left to remove: others find it at `place`, a process and its descriptor."""

    def __init__(self, size: int):
        self.descriptor = os.memfd_create("rljax-parameters")
        os.ftruncate(self.descriptor, _length(size))
        self.place = os.getpid(), self.descriptor
        memory = mmap.mmap(self.descriptor, _length(size))
        self.shared = SharedParameters(None, size + 2, memory)
        self.vector = np.empty(size + 2, np.float32)
        self.number = 0

    def publish(self, version: int, vector: np.ndarray) -> None:
        """Makes a vector the newest. Versions may have gaps: what is written is counted."""
        self.vector[:-2] = vector
        self.vector[-2:].view(np.int64)[0] = version
        self.shared.publish(self.number, self.vector)
        self.number += 1

    def close(self) -> None:
        """Closes the descriptor; what is mapped stays."""
        os.close(self.descriptor)


def _length(size):
    return 64 + SharedParameters.SLOTS * (size + 2) * 4


def _mapped(size, place):
    """What another process writes into its `NodeMemory`, to be read."""
    descriptor = os.open(f"/proc/{place[0]}/fd/{place[1]}", os.O_RDONLY)
    try:
        memory = mmap.mmap(descriptor, _length(size), access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    return SharedParameters(None, size + 2, memory)


def relay(sock: socket.socket, memory: NodeMemory, size: int) -> None:
    """A relay: writes into memory what comes, until the holder closes the connection."""
    content = memoryview(bytearray(_VERSION.size + 4 * size))
    vector = np.frombuffer(content, np.float32, size, _VERSION.size)
    with contextlib.suppress(OSError):
        while True:
            have = 0
            while have < len(content):
                count = sock.recv_into(content[have:], 0, socket.MSG_WAITALL)
                if not count:
                    return
                have += count
            memory.publish(*_VERSION.unpack_from(content), vector)
            sock.send(b"t")


def exit_when_ended(sock: socket.socket, grace: float) -> None:
    """Starts a thread that ends this process some seconds after the holder closed the connection,
    whatever an environment is doing then."""

    def wait():
        end = select.poll()
        end.register(sock.fileno(), select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        end.poll()
        time.sleep(grace)
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


# The holder's end


def order(sock: socket.socket, kind: int, numbers: tuple[int, int] = (0, 0)) -> None:
    """Sends an order to a worker. They are few and short: where there is no room for one, the
    worker has not read for very long, and its connection is broken off."""
    try:
        sent = sock.send(_ORDER.pack(kind, *numbers))
    except OSError:
        sent = 0
    if sent < _ORDER.size:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)  # which its reader notices


class Feed:
    """The holder's end of a relay's connection. It sends the newest parameters, and the next newest
    when the relay has written those."""

    def __init__(self, sock: socket.socket):
        self.sock, self.fileno, self.close = sock, sock.fileno, sock.close
        self.is_ready = self.ended = False  # ready: the memory holds parameters
        self.sent, self.is_busy = -1, False
        self.rest: list = []

    def offer(self, version: int, vector: np.ndarray) -> None:
        """Sends a vector, unless another is on its way."""
        if self.is_busy or version == self.sent:
            return
        self.sent, self.is_busy = version, True
        self.rest = [memoryview(_VERSION.pack(version)), memoryview(vector).cast("B")]
        self.send()

    def send(self) -> None:
        """Sends as much of what is left as there is room for."""
        try:
            sent = self.sock.sendmsg(self.rest)
        except BlockingIOError:
            return
        except OSError:
            self.ended, self.rest = True, []
            return
        while self.rest and sent >= len(self.rest[0]):
            sent -= len(self.rest.pop(0))
        if self.rest:
            self.rest[0] = self.rest[0][sent:]

    def take(self) -> None:
        """Notes that the relay has written what was sent, or has ended."""
        try:
            answer = self.sock.recv(16)
        except BlockingIOError:
            return
        except OSError:
            answer = b""
        self.ended |= not answer
        if answer:
            self.is_ready, self.is_busy = True, False
