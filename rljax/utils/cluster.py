"""Ray clusters: finding one, connecting to it, and what is there. Ray is an extra."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from rljax.utils.imports import check_installed

_CLUSTER = """
import os, sys, ray
made = ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
print(made.address_info["gcs_address"], os.environ.get("RAY_AUTH_MODE", ""), flush=True)
sys.stdin.read()
"""
TIMEOUT = 5.0  # seconds that a cluster has to answer: Ray itself would try for minutes, and exit


@contextlib.contextmanager
def connected(address: str | None, cpus: int, who: str) -> Iterator[Any]:
    """Gives Ray, connected to a cluster. A connection that was there before is used, and stays.

    Args:
        address: host:port; "auto" for the cluster that runs on this machine; by default that one
            or, if there is none, a new one, which ends with the block.
        cpus: needed at once.
        who: needs them.

    Raises:
        ValueError: Ray is missing, nobody answers at the address, or the cluster has fewer CPUs.
    """
    check_installed("engine = 'ray'", "ray", "ray")
    import ray

    with contextlib.ExitStack() as stack:
        if not ray.is_initialized():
            stack.enter_context(_begun(ray, address))
        _check_cpus(ray, cpus, who)
        yield ray


@contextlib.contextmanager
def _begun(ray, address):
    """Connects for the block. Ray prints nothing meanwhile: of a node that died it would say the
    last twenty lines of a log, in the middle of a display."""
    worker = ray._private.worker
    with contextlib.ExitStack() as stack:
        found = _found(address) or stack.enter_context(_started())
        prints, worker.print_to_stdstream = worker.print_to_stdstream, lambda *_, **how: None
        try:
            with _signals_kept():
                ray.init(found, log_to_driver=False, logging_level=logging.ERROR)
            yield
        except (ConnectionError, RuntimeError, SystemExit) as error:
            if ray.is_initialized():
                raise
            line = next(iter(str(error).splitlines()), type(error).__name__)
            token = "" if "RAY_AUTH_MODE" in os.environ else "; does it need RAY_AUTH_MODE=token?"
            raise ValueError(f"ray_address = {found!r}: {line}{token}") from error
        finally:
            with _signals_kept():
                ray.shutdown()
            worker.print_to_stdstream = prints


@contextlib.contextmanager
def _started():
    """Starts a cluster on this machine for the block, or until this process ends; its address. A
    process of its own does so: Ray forks, which none in which JAX runs may do."""
    command = [sys.executable, "-c", _CLUSTER]
    # Ray would have all others' processes go before its workers; theirs is what they set.
    environment = {"RAY_worker_niceness": "0", **os.environ}
    how = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    how["env"] = environment
    with subprocess.Popen(command, text=True, process_group=0, **how) as process:
        found, _, auth_mode = process.stdout.readline().strip().partition(" ")
        if not found:
            raise ValueError("engine = 'ray': no cluster could be started (see /tmp/ray)")
        try:
            with _auth_mode(auth_mode):
                yield found
        finally:
            process.stdin.close()  # which it waits for


@contextlib.contextmanager
def _auth_mode(mode):
    """Has this process show the user's token, in the block, to a cluster that asks for it: Ray sets
    this mode by itself only in the process that starts the cluster."""
    from ray._raylet import Config

    before = os.environ.get("RAY_AUTH_MODE")
    if not mode or before:
        yield
        return
    os.environ["RAY_AUTH_MODE"] = mode
    Config.initialize("")  # reads it again
    try:
        yield
    finally:
        del os.environ["RAY_AUTH_MODE"]
        Config.initialize("")


def _found(address):
    """host:port of a cluster that answers, None for a new one."""
    from ray._private import services

    if address is not None and "://" in address:
        what = "must be host:port of a cluster that this machine belongs to, or 'auto'"
        raise ValueError(f"ray_address = {address!r}: {what}")
    try:
        found = services.canonicalize_bootstrap_address(address)
    except ConnectionError as error:
        raise ValueError(f"ray_address = {address!r}: no cluster runs on this machine") from error
    except ValueError as error:
        raise ValueError(f"ray_address = {address!r}: must be host:port or 'auto'") from error
    if found is None:
        return None
    host, _, port = found.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), TIMEOUT).close()
    except (OSError, ValueError) as error:
        named = f"{address!r}" if address == found else f"{address!r} ({found})"
        raise ValueError(f"ray_address = {named}: nobody answers there ({error})") from error
    return found


def _check_cpus(ray, cpus, who):
    there = int(ray.cluster_resources().get("CPU", 0))
    if there < cpus:
        raise ValueError(f"{who}: the Ray cluster has {there} CPUs, one is needed for each")


@contextlib.contextmanager
def _signals_kept():
    """What handles signals, which Ray changes, is the same after the block."""
    try:
        before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        yield
    finally:
        with contextlib.suppress(ValueError):  # not in the main thread
            for number, handler in before.items():
                signal.signal(number, handler)


def address_of(ray: Any) -> str:
    """The address of this node in its cluster."""
    return ray.util.get_node_ip_address()
