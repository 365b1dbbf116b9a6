"""What Ray starts on the nodes of a cluster: workers, and relays of parameters. Needs no Ray and,
before a worker starts, no JAX."""

import contextlib
import os
import subprocess
import sys
from typing import NamedTuple

from rljax.a3c import network
from rljax.utils import connections, nodes

_GUARD = "import os, signal; os.read(0, 1); os.killpg(0, signal.SIGKILL)"
REFUSED = 2  # as `messages.REFUSED`, which needs JAX
GRACE = 3.0  # seconds that an actor has to end after its connection has


class Place(NamedTuple):
    """What an actor must know of its run."""

    address: tuple[str, int]  # of the holder
    key: bytes
    size: int  # of the parameters
    origin: nodes.Origin


class Worker:
    """A worker."""

    def run(self, index: int, attempt: int, place: Place, job: bytes) -> None:
        """Works until the holder closes the connection. `attempt` numbers the starts of workers."""
        wrong = nodes.take_over(place.origin)
        _guard()
        hello = {"role": "worker", "index": index, "attempt": attempt}
        sock = connections.connect(place.address, place.key, {**hello, "node": _node()})
        network.exit_when_ended(sock, GRACE)
        link = network.Link(sock)
        if wrong:
            link.put(REFUSED, wrong.encode())
            return
        from rljax.utils import preload  # noqa: F401, I001  before anything imports JAX
        from rljax.a3c import worker

        parameters = network.MappedParameters(link, place.size)
        worker.run(index, link, parameters, job)


class Relay:
    """A relay."""

    def run(self, attempt: int, node: str, place: Place) -> None:
        """Relays until the holder closes the connection."""
        memory = network.NodeMemory(place.size)
        hello = {"role": "relay", "attempt": attempt, "node": node, "place": memory.place}
        sock = connections.connect(place.address, place.key, hello)
        network.exit_when_ended(sock, GRACE)
        network.relay(sock, memory, place.size)


def _guard():
    """Starts what kills all that this process has started, when it ends, however that happens."""
    with contextlib.suppress(PermissionError):  # it leads a session, and so a group
        os.setpgid(0, 0)
    ends_with_this, held = os.pipe()
    command = [sys.executable, "-S", "-c", _GUARD]
    subprocess.Popen(command, stdin=ends_with_this)
    os.close(ends_with_this)
    os.register_at_fork(after_in_child=lambda: os.close(held))


def _node():
    import ray

    return ray.get_runtime_context().get_node_id()
