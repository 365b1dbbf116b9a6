"""What Ray starts on the nodes of a cluster: workers, and relays of parameters. Needs neither Ray
nor, before a worker is at work, JAX."""

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from rljax.a3c import network
from rljax.utils import connections

_TAKEN_OVER = ("JAX_", "MUJOCO_", "SDL_", "XLA_")
_GUARD = "import os, signal; os.read(0, 1); os.killpg(0, signal.SIGKILL)"
"""Kills what an environment has started, when its worker ends, however that happens."""
REFUSED = 2  # as `messages.REFUSED`, which needs JAX
GRACE = 3.0  # seconds that an actor has to end after its connection has


class Place(NamedTuple):
    """What an actor must know of its run."""

    address: tuple[str, int]  # of the holder
    key: bytes
    size: int  # of the parameters
    environment: Mapping[str, str]  # variables of the holder's process
    path: list[str]  # where it finds modules
    versions: Mapping[str, str]


class Worker:
    """A worker."""

    def run(self, index: int, attempt: int, place: Place, job: bytes) -> None:
        """Works until the holder closes the connection. `attempt` numbers the starts of workers."""
        _begin(place)
        hello = {"role": "worker", "index": index, "attempt": attempt}
        sock = connections.connect(place.address, place.key, {**hello, "node": _node()})
        network.exit_when_ended(sock, GRACE)
        link = network.Link(sock)
        if wrong := _differing(place.versions):
            link.put(REFUSED, wrong.encode())
            return
        from rljax.utils import preload  # noqa: F401, I001  before anything imports JAX
        from rljax.a3c import worker

        parameters = network.MappedParameters(link, place.size)
        worker.run(index, link, link, parameters, job)


class Relay:
    """A relay."""

    def run(self, attempt: int, node: str, place: Place) -> None:
        """Relays until the holder closes the connection."""
        memory = network.NodeMemory(place.size)
        hello = {"role": "relay", "attempt": attempt, "node": node, "place": memory.place}
        sock = connections.connect(place.address, place.key, hello)
        network.exit_when_ended(sock, GRACE)
        network.relay(sock, memory, place.size)


def versions() -> dict[str, str]:
    """What must be the same in all processes of a run, by name."""
    return {
        "rljax": f"{metadata.version('rljax')} (source {_source()})",
        "JAX": metadata.version("jax"),
        "NumPy": metadata.version("numpy"),
    }


@cache
def _source():
    """A few digits that tell one state of this package's source from another."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def _differing(theirs):
    """What is not as in the holder's process, in a line; empty if all is."""
    pairs = [(name, here, theirs[name]) for name, here in versions().items()]
    parts = [f"{name} {here}, not {there}" for name, here, there in pairs if here != there]
    return f"its node {_node_address()} has {', '.join(parts)} as this process" if parts else ""


def environment() -> dict[str, str]:
    """The variables of this process that an actor's takes over; others are its node's."""
    return {name: value for name, value in os.environ.items() if name.startswith(_TAKEN_OVER)}


def _begin(place):
    """First in an actor that runs a worker."""
    os.environ.update(place.environment)
    sys.path.extend(folder for folder in place.path if folder not in sys.path)
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


def _node_address():
    import ray

    return ray.util.get_node_ip_address()
