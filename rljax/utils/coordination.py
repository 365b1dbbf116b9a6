"""JAX's coordination service in a process of its own: `python -m rljax.utils.coordination`.

It tells the processes of a run on several hosts which of them still live. JAX has it in process 0,
with which it would end; the others would be aborted then before they can tell what happened.
"""

import contextlib
import signal
import sys
import time

LINGER = 30.0  # seconds after the end of the process that started it, for the others


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
