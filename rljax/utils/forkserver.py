"""Processes for A3C's workers, trials, and gymnasium environments in processes of their own.

They are forked from a server, a fresh interpreter that has only imported modules, and never from a
process in which JAX runs. This module needs JAX only for its settings.
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
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NoReturn

import cloudpickle
import numpy as np

from rljax.utils.errors import SIGNALS, TrainingError, text_of

JAX_SETTINGS = (
    "compilation_cache_dir debug_infs debug_key_reuse debug_nans default_matmul_precision"
    " default_prng_impl disable_jit enable_checks enable_compilation_cache enable_custom_prng"
    " enable_x64 legacy_prng_key numpy_dtype_promotion numpy_rank_promotion"
    " persistent_cache_min_compile_time_secs persistent_cache_min_entry_size_bytes"
    " random_seed_offset softmax_custom_jvp threefry_partitionable"
).split()
"""What a process inherits from the one that starts it, without "jax_": all that numbers, errors and
the cache of compiled programs depend on. Devices are its own."""

context = multiprocessing.get_context("forkserver")


class EnvError(TrainingError):
    """An environment that Python steps failed; the message says which one, when and how."""


class RefusedError(ValueError):
    """An environment or network that could be made in one process could not be made in another."""


def start_server() -> None:
    """Starts the server if it is not running; better early, as its imports take a second or two."""
    multiprocessing.forkserver.set_forkserver_preload(["rljax.utils.preload"])
    multiprocessing.resource_tracker.ensure_running()  # first: starting it lets signals through
    with signals_held_back():
        multiprocessing.forkserver.ensure_running()


@contextlib.contextmanager
def signals_held_back() -> Iterator[None]:
    """Blocks Ctrl-C and SIGTERM: processes started in this block never get them, as only the first
    process of a terminal must react to Ctrl-C. This process gets both when the block ends."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def main_module_left_out() -> Iterator[None]:
    """Processes started in this block do not import the main program again, which is slow and
    requires a guard around its code. Objects sent to them must not be defined in it, unless
    cloudpickle, which sends code too, has packed them."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def begin() -> None:
    """Must be called first in every started process, while it has a single thread.

    It makes the process ignore Ctrl-C and SIGTERM. Processes that this one starts, such as an
    environment's simulator, do not ignore them; they stay in its process group, which a guard
    process kills when this one or its parent ends, however that happens.
    """
    os.setpgid(0, 0)
    for number in SIGNALS:  # not SIG_IGN or blocked, which programs that it runs would inherit
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    multiprocessing.current_process().daemon = False  # or it could not start others
    ends_with_this, held = os.pipe()
    if not os.fork():
        _guard(ends_with_this, multiprocessing.parent_process().sentinel)
    os.close(ends_with_this)
    _have_usual_children([held])


def _have_usual_children(held):
    """Processes that this one forks get signals as usual, from their start, and do not hold this
    descriptor. They inherit these callbacks, which do nothing in them."""

    def set_signals(how):
        if held:
            signal.pthread_sigmask(how, SIGNALS)

    def be_usual():
        if held:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            set_signals(signal.SIG_UNBLOCK)
            os.close(held.pop())

    block, unblock = (partial(set_signals, how) for how in (signal.SIG_BLOCK, signal.SIG_UNBLOCK))
    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=be_usual)


def _guard(*ends: int) -> NoReturn:
    """Kills its process group when one of these descriptors is at its end. It closes all others,
    so that nobody waits for it."""
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        for other in {int(name) for name in os.listdir("/proc/self/fd")} - {*ends}:
            with contextlib.suppress(OSError):  # of the listing itself
                os.close(other)
        select.select(ends, [], [])
    finally:
        os.killpg(0, signal.SIGKILL)


def children() -> set:
    """The processes that this one has started with `multiprocessing`."""
    return set(multiprocessing.active_children())


@contextlib.contextmanager
def children_ended(before: set) -> Iterator[None]:
    """Kills, at the end of the block, the `children` that are not in `before`: processes that an
    environment left behind would keep this program from ending."""
    try:
        yield
    finally:
        for child in children() - before:
            child.kill()
            child.join()


def jax_settings() -> dict[str, Any]:
    """The values of `JAX_SETTINGS` in this process, including those set by context managers."""
    import jax

    names = [f"jax_{name}" for name in JAX_SETTINGS]
    return {name: getattr(jax.config, name) for name in names if hasattr(jax.config, name)}


def take_over(settings: Mapping[str, Any]) -> None:
    """Applies the `jax_settings` of the process that started this one."""
    import jax

    for name, value in settings.items():
        jax.config.update(name, value)


def seed_generators(*numbers: int) -> None:
    """Seeds the global generators of NumPy and Python, which environments may use, from uint32
    numbers. In processes forked from one server, NumPy's would all give the same numbers, and
    Python's others in every run. Not for the user's process, where they belong to the user."""
    text = repr([int(number) for number in numbers])
    digest = hashlib.sha256(text.encode()).digest()  # to NumPy [1] and [1, 0] are the same seed
    np.random.seed(np.frombuffer(digest, np.uint32))
    random.seed(digest)


def packed(thing: Any, dumps: Callable[[Any], bytes] | None = None) -> bytes:
    """Pickles an object for another process; raises a TypeError where that fails. In a notebook,
    which the other process cannot import, what is defined there is sent with its code."""
    # Only there: not all that can be imported (jax.custom_vjp) can be sent with its code.
    is_notebook = not hasattr(sys.modules["__main__"], "__file__")
    try:
        return (dumps or (cloudpickle.dumps if is_notebook else pickle.dumps))(thing)
    except Exception as error:  # objects have methods for this, which may raise anything
        raise TypeError(
            "an environment, network, loss or function cannot be sent to another process"
            f" ({text_of(error)}); name it as 'package.module:attribute'"
        ) from error


def how_it_ended(exitcode: int | None) -> str:
    """The exit code of a process, in words."""
    if exitcode is not None and exitcode < 0:
        known = {number.value: number.name for number in signal.Signals}
        return f"was killed by {known.get(-exitcode, f'signal {-exitcode}')}"
    return f"exited with status {exitcode}"
