"""Compiled programs: short ones, those that run once, and how many a process can have."""

import os
from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

import jax

from rljax.utils import pytrees, sharding

FEW = 500_000
_QUICK = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):  # later ones know no such option
    _QUICK["xla_cpu_use_fusion_emitters"] = False
_ORDERS = "xla_cpu_scheduler_type", "xla_cpu_enable_concurrency_optimized_scheduler"
_IN_ORDER = {_ORDERS[0]: "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
if jax.__version_info__ < (0, 9, 2):  # earlier ones know only the other option
    _IN_ORDER = {_ORDERS[1]: False}
MAPPED = 0.5  # share of the memory mappings of a process from which on programs are forgotten

_kept = []


def kept(make: Callable) -> Callable:
    """`lru_cache` for functions that give compiled programs, which `make_room` forgets."""
    _kept.append(lru_cache(maxsize=256)(make))
    return _kept[-1]


def make_room() -> None:
    """Forgets compiled programs where they are many; those that are needed again are compiled
    again. XLA maps the memory of each on a CPU in about a thousand parts, of which Linux gives a
    process 65,530; where it gets none, it ends the process with a segmentation fault."""
    try:
        most = int(Path("/proc/sys/vm/max_map_count").read_text())
        with open("/proc/self/maps", "rb") as mappings:
            number = sum(1 for _ in mappings)
    except OSError:  # not Linux
        return
    if number > MAPPED * most:
        for cached in _kept:
            cached.cache_clear()
        jax.clear_caches()


def in_order() -> dict | None:
    """Compiler options for a program of many short operations; None where they do not apply.

    On a CPU, XLA's default scheduler runs ready operations in a second thread, even with NPROC=1,
    and the handover takes longer than the operation. Its memory-saving scheduler hands over few:
    with 64x64 towers, an update of 80 steps of CartPole in gymnasium takes 76 us instead of 119.
    A scheduler in the user's own XLA_FLAGS is kept.
    """
    is_said = any(name in os.environ.get("XLA_FLAGS", "") for name in _ORDERS)
    return _IN_ORDER if sharding.on_cpu() and not is_said else None


def jit_in_order(function: Callable, **how: Any) -> Callable:
    """`jax.jit` with `in_order`."""
    return jax.jit(function, compiler_options=in_order(), **how)


def jit_once(function: Callable, static_argnames: tuple[str, ...] = ()) -> Callable:
    """Jits a function that runs once. If it returns `FEW` numbers at most, a CPU compiles it with
    the least optimisation: eight agents of CartPole are made in 0.7 s instead of 1.8, of which
    0.02 s instead of 0.01 is running. Of 512x512 networks, running would take longer than what
    compiling saves. Where the caller traces it, it is traced as part of that."""
    usual = jax.jit(function, static_argnames=static_argnames)
    quick = jax.jit(function, static_argnames=static_argnames, compiler_options=_QUICK)

    @wraps(function)
    def call(*args, **kwargs):
        is_traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((args, kwargs)))
        if is_traced or not sharding.on_cpu():
            return usual(*args, **kwargs)
        is_small = pytrees.size(usual.eval_shape(*args, **kwargs)) <= FEW
        return (quick if is_small else usual)(*args, **kwargs)

    return call
