"""Processes that this one starts: A3C's workers, and gymnasium's environments each in its own.

They are forked, but never from a process in which JAX runs: from a server that is a fresh
interpreter, which has only imported. Nothing in here needs JAX.
"""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator

SIGNALS = {signal.SIGINT, signal.SIGTERM}
context = multiprocessing.get_context("forkserver")


class EnvError(RuntimeError):
    """An environment stepped by Python failed; which one, when and how is in the message."""


class RefusedError(ValueError):
    """What can be made in one process and not in another: an environment or a network."""


def start_server() -> None:
    """Starts the process that others are forked from, unless there is one. It imports
    `rljax.preload`, for a second or two; a program that will train can call this early."""
    multiprocessing.forkserver.set_forkserver_preload(["rljax.preload"])
    multiprocessing.resource_tracker.ensure_running()  # first: starting it lets signals through
    with signals_held_back():
        multiprocessing.forkserver.ensure_running()


@contextlib.contextmanager
def signals_held_back() -> Iterator[None]:
    """Ctrl-C goes to all processes of a terminal, and is for the first one alone to deal with:
    those started in here never see it, nor SIGTERM. Here both come when the block ends."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def main_module_left_out() -> Iterator[None]:
    """Processes started in here do not import the main program again, which takes its time and asks
    for a guard around what it does. What they are given must not be of its making, unless
    cloudpickle, which sends code itself, has packed it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def end_with_parent() -> None:
    """From here on this process ends when its parent is gone, whatever it does meanwhile."""

    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def how_it_ended(exitcode: int | None) -> str:
    """A process's exit code in words."""
    if exitcode is not None and exitcode < 0:
        known = {number.value: number.name for number in signal.Signals}
        return f"was killed by {known.get(-exitcode, f'signal {-exitcode}')}"
    return f"exited with status {exitcode}"
