"""The newest parameters on all nodes that have workers: the holder's, where they are in its memory,
and others, each with a relay that Ray starts there.
"""

import selectors
from collections.abc import Iterator
from typing import Any

import numpy as np

from rljax.a3c import network, ray_actors

MOST_RELAYS = 3  # of a node, one after another, that write nothing; the last's end is the workers'


class _Relay:
    """A node's relay."""

    def __init__(self, actor, task, attempt, number):
        self.actor, self.task, self.attempt = actor, task, attempt
        self.number = number  # of those that wrote nothing
        self.feed = self.place = None


class NodeParameters:
    """As `transport.SharedParameters` for the holder; workers read with `MappedParameters`."""

    def __init__(self, ray: Any, size: int):
        self.ray, self.size = ray, size
        self.here, self.memory = ray.get_runtime_context().get_node_id(), network.NodeMemory(size)
        self.relays: dict[str, _Relay] = {}  # by their nodes
        self.newest = None

    def begin(
        self, place: ray_actors.Place, attempts: Iterator[int], selector: selectors.BaseSelector
    ) -> None:
        """From here on there may be relays, whose connections are watched by the selector as
        ("relay", node)."""
        self.run, self.attempts, self.selector = place, attempts, selector

    def publish(self, version: int, vector: np.ndarray) -> None:
        """Makes a vector the newest."""
        self.newest = version, vector
        self.memory.publish(version, vector)
        for relay in self.relays.values():
            if relay.feed:
                relay.feed.offer(version, vector)

    def is_on(self, node: str) -> bool:
        """Whether there are parameters on a node, and newer ones will come."""
        relay = self.relays.get(node)
        return node == self.here or bool(relay and relay.feed and relay.feed.is_ready)

    def place(self, node: str) -> tuple[int, int]:
        """Where they are on a node: a process and its descriptor."""
        return self.memory.place if node == self.here else self.relays[node].place

    def bring_to(self, node: str, number: int = 1) -> None:
        """Starts a relay on a node that has none."""
        if node in self.relays:
            return
        strategy = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        how = dict(num_cpus=0, scheduling_strategy=strategy(node, soft=False))
        actor, attempt = self.ray.remote(**how)(ray_actors.Relay).remote(), next(self.attempts)
        task = actor.run.remote(attempt, node, self.run)
        self.relays[node] = _Relay(actor, task, attempt, number)

    def tasks(self) -> dict[Any, str]:
        """What Ray watches, and the node of each."""
        return {relay.task: node for node, relay in self.relays.items()}

    def welcome(self, sock: Any, hello: dict) -> None:
        """Takes a relay's connection, unless it has been given up."""
        relay = self.relays.get(hello["node"])
        if relay is None or relay.attempt != hello["attempt"] or relay.feed:
            sock.close()
            return
        relay.place, relay.feed = tuple(hello["place"]), network.Feed(sock)
        self.selector.register(relay.feed, selectors.EVENT_READ, ("relay", hello["node"]))
        relay.feed.offer(*self.newest)

    def watch(self) -> None:
        """Has the selector tell when there is room to send what is left."""
        for node, relay in self.relays.items():
            if relay.feed:
                events = selectors.EVENT_READ | selectors.EVENT_WRITE * bool(relay.feed.rest)
                self.selector.modify(relay.feed, events, ("relay", node))

    def hear(self, node: str) -> tuple[bool, bool]:
        """Deals with what the selector told of a relay: (whether parameters are there for the first
        time, whether it has ended)."""
        relay = self.relays[node]
        feed, was_ready = relay.feed, relay.feed.is_ready
        feed.take()
        if feed.rest:
            feed.send()
        if not feed.ended:
            feed.offer(*self.newest)
        if is_new := feed.is_ready and not was_ready:
            relay.number = 0
        return is_new, feed.ended

    def lose(self, node: str, is_needed: bool) -> bool:
        """Replaces a relay that has ended, if the node has workers; whether it is given up."""
        relay = self.relays[node]
        self._end(node)
        gives_up = relay.number == MOST_RELAYS
        if is_needed and not gives_up:
            self.bring_to(node, relay.number + 1)
        return gives_up

    def end(self) -> None:
        """Ends all relays."""
        for node in list(self.relays):
            self._end(node)
        self.memory.close()

    def _end(self, node):
        relay = self.relays.pop(node)
        if relay.feed:
            self.selector.unregister(relay.feed)
            relay.feed.close()
        if self.ray.is_initialized():
            self.ray.kill(relay.actor)
