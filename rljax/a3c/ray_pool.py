"""Workers as Ray actors: starting, watching, restarting and stopping them, as `worker_pool` does
with processes of this machine. Ray places them; `network` carries what they send.
"""

import itertools
import math
import secrets
import selectors
import socket
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any

import cloudpickle
import numpy as np

from rljax.a3c import messages, network, ray_actors, transport
from rljax.a3c.worker_pool import GRACE, MALFORMED, Message
from rljax.utils import cluster, connections, errors, forkserver

LOOK = 0.5  # seconds between two looks at what Ray says of the actors
LATE = 30  # seconds, after which it is told that a worker does not start
MOST_RELAYS = 3  # of a node, that end without a word; its workers end with the last


class Parameters:
    """The newest parameters: in memory for this node's workers, and on their way to others."""

    def __init__(self, size: int):
        self.size, self.memory = size, network.NodeMemory(size)
        self.feeds: list[network.Feed] = []
        self.newest = None

    def publish(self, version: int, vector: np.ndarray) -> None:
        """Makes a vector the newest."""
        self.newest = version, vector
        self.memory.publish(version, vector)
        self.offer()

    def offer(self) -> None:
        """Sends the newest to relays that have written what they were sent."""
        for feed in self.feeds:
            feed.offer(*self.newest)


class _Worker:
    """An actor, and its connection once it has one."""

    def __init__(self, actor, task, attempt):
        self.actor, self.task, self.attempt = actor, task, attempt
        self.sock = self.reader = self.node = self.address = None
        self.begun = time.monotonic()
        self.owed: list[int] = []  # orders that wait for the connection, or for a relay


class _Relay:
    """A node's relay."""

    def __init__(self, number=1):
        self.actor = self.task = self.attempt = self.feed = self.place = None
        self.number = number  # started since one wrote parameters


class RayPool:
    """As `worker_pool.WorkerPool`, on the cluster to which `ray` is connected."""

    def __init__(self, ray: Any, size: int, usual: int, longest: int):
        self.ray, self.usual, self.longest = ray, usual, longest
        self.parameters = Parameters(size)
        self.workers: dict[int, _Worker] = {}
        self.relays: dict[str, _Relay] = {}
        self.attempts = itertools.count()
        self.came: deque = deque()  # connections, from the threads that admit them
        self.selector = selectors.DefaultSelector()
        self.looked = time.monotonic()

    def __enter__(self):
        self.node = self.ray.get_runtime_context().get_node_id()
        key = secrets.token_bytes(32)
        self.listener = connections.listen(cluster.address_of(self.ray))
        self.place = ray_actors.Place(
            self.listener.getsockname()[:2],
            key,
            self.parameters.size,
            ray_actors.environment(),
            sys.path,
            ray_actors.versions(),
        )
        self.woken, self.wake = socket.socketpair()
        self.selector.register(self.woken, selectors.EVENT_READ, ("came", None))
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
        for node in list(self.relays):
            self._end_relay(node)
        self.selector.close()
        self.parameters.memory.close()

    # What a supervisor calls

    def start(self, index: int, job: Any) -> None:
        """Starts a worker on a `messages.Job`, as `WorkerPool.start` does."""
        packed = forkserver.packed(job, cloudpickle.dumps)
        attempt = next(self.attempts)
        actor = self._remote(ray_actors.Worker, num_cpus=1).remote()
        task = actor.run.remote(index, attempt, self.place, packed)
        self.workers[index] = _Worker(actor, task, attempt)

    def messages(self, timeout: float) -> Iterator[Message]:
        """As `WorkerPool.messages`."""
        for node, relay in self.relays.items():
            if relay.feed:
                events = selectors.EVENT_READ | selectors.EVENT_WRITE * bool(relay.feed.rest)
                self.selector.modify(relay.feed, events, ("relay", node))
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

    def grant(self, index: int) -> None:
        """Gives a worker a turn."""
        self._order(self.workers[index], network.TURN)

    def waiting(self) -> int:
        """Bytes that have come and are not read."""
        return sum(worker.reader.waiting() for worker in self.workers.values() if worker.reader)

    # Workers

    def _messages_of(self, index, dead=False):
        worker = self.workers[index]
        while got := worker.reader.get():
            for kind, content in got:
                yield Message(index, kind, content)
                self._order(worker, network.GO_ON)
            if not dead:  # of a dead one everything is read
                break
        if worker.reader.malformed:
            yield Message(index, MALFORMED, memoryview(b""))
            self._remove(index)
            yield Message(index, None, "was stopped: its message stream is corrupt")
        elif dead or worker.reader.ended:
            self._remove(index)
            yield Message(index, None, f"on {worker.address} died: its connection ended")

    def _order(self, worker, kind):
        """Sends an order, or keeps it. Without new parameters a worker does not go on."""
        if worker.sock and (kind != network.GO_ON or self._is_fed(worker.node)):
            network.order(worker.sock, kind)
        else:
            worker.owed.append(kind)

    def _is_fed(self, node):
        """Whether there are parameters on a node, and newer ones will come."""
        feed = self.relays[node].feed if node in self.relays else None
        return node == self.node or bool(feed and feed.is_ready)

    def _tell_place(self, worker):
        """Tells a worker where its node has the parameters, and what it was owed."""
        here = self.parameters.memory.place
        place = here if worker.node == self.node else self.relays[worker.node].place
        network.order(worker.sock, network.MEMORY, place)
        owed, worker.owed = worker.owed, []
        for kind in owed:
            network.order(worker.sock, kind)

    def _remove(self, index):
        worker = self.workers.pop(index)
        if worker.sock:
            self.selector.unregister(worker.reader)
            worker.reader.close()
        self._kill(worker.actor)

    # What comes

    def _came(self, sock, hello):
        self.came.append((sock, hello))
        self.wake.send(b"t")

    def _welcome(self, sock, hello):
        """Takes a connection, unless it is of an actor that has been given up."""
        node, attempt = hello["node"], hello["attempt"]
        if hello["role"] == "relay":
            relay = self.relays.get(node)
            if relay is None or relay.attempt != attempt or relay.feed:
                sock.close()
                return
            relay.place, relay.feed = tuple(hello["place"]), network.Feed(sock)
            self.selector.register(relay.feed, selectors.EVENT_READ, ("relay", node))
            self.parameters.feeds.append(relay.feed)
            self.parameters.offer()
            return
        worker = self.workers.get(hello["index"])
        if worker is None or worker.attempt != attempt or worker.sock:
            sock.close()
            return
        worker.sock, worker.node, worker.address = sock, node, sock.getpeername()[0]
        worker.reader = transport.Reader(sock, self.usual, self.longest)
        self.selector.register(worker.reader, selectors.EVENT_READ, ("worker", hello["index"]))
        if self._is_fed(node):
            self._tell_place(worker)
        elif node not in self.relays:
            self._start_relay(node)

    def _look(self):
        """What Ray says: which actors have ended, and which do not start."""
        tasks = {worker.task: index for index, worker in self.workers.items()}
        tasks |= {relay.task: node for node, relay in self.relays.items()}
        ended, _ = self.ray.wait(list(tasks), num_returns=len(tasks), timeout=0)
        for task in ended:
            which = tasks[task]
            if which in self.relays:
                self._lose_relay(which)
            elif which in self.workers and self.workers[which].sock:
                yield from self._messages_of(which, dead=True)
            elif which in self.workers and not self.came:
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

    # Relays

    def _start_relay(self, node):
        relay = self.relays.setdefault(node, _Relay())
        strategy = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        how = dict(num_cpus=0, scheduling_strategy=strategy(node, soft=False))
        relay.actor = self._remote(ray_actors.Relay, **how).remote()
        relay.attempt = next(self.attempts)
        relay.task = relay.actor.run.remote(relay.attempt, node, self.place)

    def _hear(self, node):
        relay = self.relays[node]
        feed, was_ready = relay.feed, relay.feed.is_ready
        feed.take()
        if feed.rest:
            feed.send()
        if feed.ended:
            self._lose_relay(node)
            return
        self.parameters.offer()
        if feed.is_ready and not was_ready:
            relay.number = 0
            for worker in self._workers_of(node):
                self._tell_place(worker)

    def _lose_relay(self, node):
        """Starts another, if the node has workers: they wait for it, at their next push."""
        relay = self.relays[node]
        self._end_relay(node)
        workers = self._workers_of(node)
        if relay.number == MOST_RELAYS:
            for worker in workers:
                worker.sock.shutdown(socket.SHUT_RDWR)  # which its reader notices
        elif workers:
            self.relays[node] = _Relay(relay.number + 1)
            self._start_relay(node)

    def _end_relay(self, node):
        relay = self.relays.pop(node)
        if relay.feed:
            self.parameters.feeds.remove(relay.feed)
            self.selector.unregister(relay.feed)
            relay.feed.close()
        self._kill(relay.actor)

    def _workers_of(self, node):
        return [worker for worker in self.workers.values() if worker.node == node]

    def _remote(self, kind, **how):
        return self.ray.remote(**how)(kind)

    def _kill(self, actor):
        if self.ray.is_initialized():
            self.ray.kill(actor)
