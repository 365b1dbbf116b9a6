"""Processes that this one starts: A3C's workers, and gymnasium's environments each in its own.

They are forked, but never from a process in which JAX runs: from a server that is a fresh
interpreter, which has only imported. Nothing in here needs JAX, but for its settings.
"""

import contextlib
import hashlib
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import pickle
import random
import select
import signal
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from rljax.utils.errors import SIGNALS, text_of

JAX_SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_debug_infs",
    "jax_debug_key_reuse",
    "jax_debug_nans",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_disable_jit",
    "jax_enable_checks",
    "jax_enable_compilation_cache",
    "jax_enable_custom_prng",
    "jax_enable_x64",
    "jax_legacy_prng_key",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
    "jax_random_seed_offset",
    "jax_softmax_custom_jvp",
    "jax_threefry_partitionable",
)
"""What a process takes over from the one that starts it: all that numbers, errors and the cache of
compiled programs depend on, and nothing of devices, which are its own."""

context = multiprocessing.get_context("forkserver")


class EnvError(RuntimeError):
    """An environment stepped by Python failed; which one, when and how is in the message."""


class RefusedError(ValueError):
    """What can be made in one process and not in another: an environment or a network."""


def start_server() -> None:
    """Starts the process that others are forked from, unless there is one. It imports
    `rljax.utils.preload`, for a second or two; a program that will train can call this early."""
    multiprocessing.forkserver.set_forkserver_preload(["rljax.utils.preload"])
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


def begin() -> None:
    """The first line of a process that is started from here, while it has a single thread.

    It may start processes itself, as an environment does that runs a simulator beside it. Those
    stay in its process group, which ends with it, whatever ends it; and it ends with its parent,
    whatever it does meanwhile. A guard sees to both: a process that waits for one of the two.

    Ctrl-C and SIGTERM change nothing in it, and do in what it starts.
    """
    os.setpgid(0, 0)
    for number in SIGNALS:  # neither ignored nor blocked, as programs that it runs would be too
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    multiprocessing.current_process().daemon = False  # else it could not start any
    ends_with_this, held = os.pipe()
    if not os.fork():
        _guard(ends_with_this, multiprocessing.parent_process().sentinel)
    os.close(ends_with_this)
    _have_usual_children([held])


def _have_usual_children(held):
    """Processes that this one forks get signals as usual, from their first moment on, and do not
    hold this descriptor. What is set here is inherited by them, where it shall do nothing."""

    def block():
        if held:
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def unblock():
        if held:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def be_usual():
        if held:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            unblock()
            os.close(held.pop())

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=be_usual)


def _guard(*ends: int) -> NoReturn:
    """Ends its whole process group, itself included, when one of these descriptors is at its end.
    It holds no others, so that nobody waits for it."""
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        for other in {int(name) for name in os.listdir("/proc/self/fd")} - {*ends}:
            with contextlib.suppress(OSError):  # of the listing itself
                os.close(other)
        select.select(ends, [], [])
    finally:
        os.killpg(0, signal.SIGKILL)


def children() -> set:
    """The processes that this one has started by `multiprocessing`."""
    return set(multiprocessing.active_children())


@contextlib.contextmanager
def children_ended(before: set) -> Iterator[None]:
    """In the end, ends the `children` that there were not before: of an environment that was closed
    they would keep this program from its own end."""
    try:
        yield
    finally:
        for child in children() - before:
            child.kill()
            child.join()


def jax_settings() -> dict[str, Any]:
    """This process's `JAX_SETTINGS`, those that a context manager has set included."""
    import jax

    return {name: getattr(jax.config, name) for name in JAX_SETTINGS if hasattr(jax.config, name)}


def take_over(settings: Mapping[str, Any]) -> None:
    """Sets what `jax_settings` gave in the process that started this one."""
    import jax

    for name, value in settings.items():
        jax.config.update(name, value)


def seed_generators(*numbers: int) -> None:
    """Seeds NumPy's global generator and Python's, which environments may draw from: in processes
    that are forked from one server, NumPy's would all give the same numbers, and Python's others in
    every run.

    Only for a process that was started from here: in the user's own they are the user's.

    Args:
        numbers: uint32, of a key of its own.
    """
    text = repr([int(number) for number in numbers])
    digest = hashlib.sha256(text.encode()).digest()  # NumPy takes [1] and [1, 0] for the same
    np.random.seed(np.frombuffer(digest, np.uint32))
    random.seed(digest)


def packed(thing: Any) -> bytes:
    """An object for another process.

    Raises:
        TypeError: it cannot be sent there.
    """
    try:
        return pickle.dumps(thing)
    except Exception as error:  # objects have methods for this, which may raise anything
        raise TypeError(
            "an environment or network object cannot be sent to another process"
            f" ({text_of(error)}); name it as 'package.module:attribute'"
        ) from error


def how_it_ended(exitcode: int | None) -> str:
    """A process's exit code in words."""
    if exitcode is not None and exitcode < 0:
        known = {number.value: number.name for number in signal.Signals}
        return f"was killed by {known.get(-exitcode, f'signal {-exitcode}')}"
    return f"exited with status {exitcode}"
