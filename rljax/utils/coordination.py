"""JAX's coordination service in a process of its own: `python -m rljax.utils.coordination`.

It tells the processes of a run on several hosts which of them still live. JAX has it in process 0,
with which it would end; the others would be aborted then before they can tell what happened.
"""

import contextlib
import errno
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

LINGER = 30.0  # seconds after the end of the process that started it, for the others


@contextlib.contextmanager
def beside(distributed: Any, heartbeat: int) -> Iterator[None]:
    """In the block `jax._src.distributed` starts this program beside its own."""
    runtime, before = distributed._jax, distributed._jax.get_distributed_runtime_service
    start = lambda address, number, **_: _Service(address, number, heartbeat)  # noqa: E731
    runtime.get_distributed_runtime_service = start
    try:
        yield
    finally:
        runtime.get_distributed_runtime_service = before


class _Service:
    """The process; JAX calls `shutdown`."""

    def __init__(self, address, number, heartbeat):
        import subprocess

        _await_free(int(address.rpartition(":")[2]))
        command = [sys.executable, "-m", __name__, address, str(number), str(heartbeat)]
        nothing = subprocess.DEVNULL  # whoever reads what this program prints waits for its end
        pipes = dict(stdin=subprocess.PIPE, stdout=nothing, stderr=nothing)
        self.process = subprocess.Popen(command, **pipes, start_new_session=True)

    def shutdown(self):
        self.process.stdin.close()


def _await_free(port):
    """Waits for a port that the service of a run before still has."""
    end = time.monotonic() + LINGER + 5
    while True:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
                return
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                    raise ValueError(f"port {port} cannot be served ({error.strerror})") from error
        time.sleep(0.5)


def await_answer(coordinator: str, seconds: float) -> None:
    """Waits for somebody to listen at HOST:PORT; raises ValueError if nobody does so long."""
    host, _, port = coordinator.rpartition(":")
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if isinstance(error, socket.gaierror) or time.monotonic() > end:
                why = error.strerror or error
                raise ValueError(f"nobody answers ({why})") from error
        time.sleep(0.2)


def main(address: str, number: str, heartbeat: str) -> None:
    """Serves until stdin ends, with the process that started this one, and then for a while."""
    for name in (signal.SIGINT, signal.SIGTERM):  # of the whole job: process 0 ends in order
        signal.signal(name, signal.SIG_IGN)
    from jaxlib import _jax

    how = dict(heartbeat_timeout=int(heartbeat), shutdown_timeout=1, recoverable=True)
    service = _jax.get_distributed_runtime_service(address, int(number), **how)
    sys.stdin.read()
    time.sleep(LINGER)
    with contextlib.suppress(Exception):
        service.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
