"""Workers as Ray actors: starting, watching, restarting and stopping them, as `worker_pool` does
with processes of this machine. Ray places them; `network` carries what they send.

The holder's limit, with 9,155 parameters (37 KB) on one core of a busy machine: 91 us to apply a
gradient, 20 to answer it and 10 to publish, so about 8,000 gradients/s and 300 MB/s. In gymnasium's
CartPole that is 4 workers of 1x5 (1,955 gradients/s each, alone) or 18 of 8x20 (438). At that rate
a network of 10 Gbit/s binds from 39,000 parameters on; above, gradients/s times bytes is constant.
On paper: S holders, each of a part of the parameters, would divide bytes and applying by S, and not
the answer to each message; and a worker's parameters would be of S versions.
"""

import itertools
import math
import secrets
import selectors
import socket
import time
import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any

import cloudpickle

from rljax.a3c import messages, network, ray_actors, transport
from rljax.a3c.ray_relays import NodeParameters
from rljax.a3c.worker_pool import GRACE, Message, messages_of
from rljax.utils import cluster, connections, errors, forkserver, nodes

LOOK = 0.5  # seconds between two looks at what Ray says of the actors
LATE = 30  # seconds, after which it is told that a worker does not start


class _Worker:
    """An actor, and its connection once it has one."""

    def __init__(self, actor, task, attempt):
        self.actor, self.task, self.attempt = actor, task, attempt
        self.sock = self.reader = self.node = self.address = None
        self.begun = time.monotonic()
        self.owed: list[tuple] = []  # orders that wait for the connection, or for a relay


class RayPool:
    """As `worker_pool.WorkerPool`, on the cluster to which `ray` is connected."""

    room = network.ROOM

    def __init__(self, ray: Any, size: int, usual: int, longest: int):
        self.ray, self.usual, self.longest = ray, usual, longest
        self.parameters = NodeParameters(ray, size)
        self.workers: dict[int, _Worker] = {}
        self.attempts = itertools.count()
        self.came: deque = deque()  # connections, from the threads that admit them
        self.selector = selectors.DefaultSelector()
        self.looked = time.monotonic()

    def __enter__(self):
        key = secrets.token_bytes(32)
        self.listener = connections.listen(cluster.address_of(self.ray))
        address, size = self.listener.getsockname()[:2], self.parameters.size
        self.place = ray_actors.Place(address, key, size, nodes.origin())
        self.woken, self.wake = socket.socketpair()
        self.selector.register(self.woken, selectors.EVENT_READ, ("came", None))
        self.parameters.begin(self.place, self.attempts, self.selector)
        connections.accept(self.listener, key, self._came)
        return self

    def __exit__(self, *exception):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        tasks = [worker.task for worker in self.workers.values() if worker.sock]
        for worker in self.workers.values():
            if worker.sock:
                worker.sock.shutdown(socket.SHUT_RDWR)
        if tasks and self.ray.is_initialized():
            self.ray.wait(tasks, num_returns=len(tasks), timeout=GRACE)
        for index in list(self.workers):
            self._remove(index)
        self.parameters.end()
        self.selector.close()
        for end in (self.woken, self.wake):
            end.close()

    # What a supervisor calls

    def start(self, index: int, job: Any) -> None:
        """Starts a worker on a `messages.Job`, as `WorkerPool.start` does."""
        packed = forkserver.packed(job, cloudpickle.dumps)
        attempt = next(self.attempts)
        actor = self.ray.remote(num_cpus=1)(ray_actors.Worker).remote()
        task = actor.run.remote(index, attempt, self.place, packed)
        self.workers[index] = _Worker(actor, task, attempt)

    def messages(self, timeout: float) -> Iterator[Message]:
        """As `WorkerPool.messages`."""
        self.parameters.watch()
        for key, _ in self.selector.select(timeout):
            kind, which = key.data
            if kind == "came":
                self.woken.recv(4096)
                while self.came:
                    self._welcome(*self.came.popleft())
            elif kind == "relay":
                self._hear(which)
            else:
                yield from self._messages_of(which)
        if time.monotonic() - self.looked > LOOK:
            yield from self._look()
            self.looked = time.monotonic()

    def grant(self, index: int, version: int = 0) -> None:
        """As `WorkerPool.grant`."""
        self._order(self.workers[index], network.GRANT, (version, 0))

    def waiting(self) -> int:
        """Bytes that have come and are not read."""
        return sum(worker.reader.waiting() for worker in self.workers.values() if worker.reader)

    # Workers

    def _messages_of(self, index, dead=False):
        reader = self.workers[index].reader
        return messages_of(index, reader, dead, lambda: self._remove(index))

    def _order(self, worker, *order):
        """Sends an order, or keeps it while there are no new parameters on the worker's node."""
        if worker.sock and self.parameters.is_on(worker.node):
            network.order(worker.sock, *order)
        else:
            worker.owed.append(order)

    def _tell_place(self, worker):
        """Tells a worker where its node has the parameters, and what it was owed."""
        network.order(worker.sock, network.MEMORY, self.parameters.place(worker.node))
        owed, worker.owed = worker.owed, []
        for order in owed:
            network.order(worker.sock, *order)

    def _remove(self, index):
        """Ends a worker; how it ended, if nothing more is known."""
        worker = self.workers.pop(index)
        if worker.sock:
            self.selector.unregister(worker.reader)
            worker.reader.close()
        if self.ray.is_initialized():
            self.ray.kill(worker.actor)
        return f"on {worker.address} died: its connection ended"

    # What comes

    def _came(self, sock, hello):
        self.came.append((sock, hello))
        self.wake.send(b"t")

    def _welcome(self, sock, hello):
        """Takes a connection, unless it is of an actor that has been given up."""
        node, attempt = hello["node"], hello["attempt"]
        if hello["role"] == "relay":
            self.parameters.welcome(sock, hello)
            return
        worker = self.workers.get(hello["index"])
        if worker is None or worker.attempt != attempt or worker.sock:
            sock.close()
            return
        worker.sock, worker.node, worker.address = sock, node, sock.getpeername()[0]
        worker.reader = transport.Reader(sock, self.usual, self.longest)
        self.selector.register(worker.reader, selectors.EVENT_READ, ("worker", hello["index"]))
        if self.parameters.is_on(node):
            self._tell_place(worker)
        else:
            self.parameters.bring_to(node)

    def _look(self):
        """What Ray says: which actors have ended, and which do not start."""
        tasks = {worker.task: index for index, worker in self.workers.items()}
        tasks |= self.parameters.tasks()
        ended, _ = self.ray.wait(list(tasks), num_returns=len(tasks), timeout=0)
        for task in ended:
            which = tasks[task]
            if which not in self.workers:
                self._lose_relay(which)
            elif self.workers[which].sock:
                yield from self._messages_of(which, dead=True)
            elif not self.came:
                yield from self._failed(which)
        for index, worker in self.workers.items():
            if not worker.sock and worker.begun < time.monotonic() - LATE:
                worker.begun = math.inf
                what = "the cluster may have no CPU that is free (see: ray status)"
                warnings.warn(f"worker {index} has not started for {LATE} s: {what}", stacklevel=2)

    def _failed(self, index):
        """The messages of an actor that ended before it connected."""
        try:
            self.ray.get(self.workers[index].task)
            how = "ended before it began"
        except self.ray.exceptions.RayTaskError as error:  # such as a module that is not there
            line = errors.in_a_line(error.cause or error)
            yield Message(index, messages.REFUSED, memoryview(f"on its node: {line}".encode()))
            return
        except self.ray.exceptions.RayError as error:
            how = f"could not be started: {' '.join(str(error).split())}"
        self._remove(index)
        yield Message(index, None, how)

    def _hear(self, node):
        is_new, is_lost = self.parameters.hear(node)
        if is_lost:
            self._lose_relay(node)
        elif is_new:
            for worker in self._workers_of(node):
                self._tell_place(worker)

    def _lose_relay(self, node):
        """Workers wait for the next relay, at their next push."""
        workers = self._workers_of(node)
        if self.parameters.lose(node, bool(workers)):
            for worker in workers:
                worker.sock.shutdown(socket.SHUT_RDWR)  # which its reader notices

    def _workers_of(self, node):
        return [worker for worker in self.workers.values() if worker.node == node]
