"""Where JAX computes, and how XLA compiles for it."""

import contextlib
import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

CPU_FLAGS = (
    # XLA's heavier optimisations take most of its compile time on a CPU and gain these small
    # programs nothing.
    "--xla_backend_optimization_level=1",
    # Loops over little data, such as those that draw random numbers, are compiled as one piece
    # instead of being interpreted operation by operation.
    "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=131072",
    # Of AVX-512 XLA takes half the width. With all of it CartPole makes 1.05 to 1.11 times the
    # steps/s on an AMD EPYC, and the same on an Intel Xeon.
    "--xla_cpu_prefer_vector_width=512",
)
"""For XLA on a CPU, where the user's own XLA_FLAGS do not say otherwise."""


@contextlib.contextmanager
def computing_on(
    device: str, cpu_devices: int = 1, in_place: bool = False, factorizes: bool = False
) -> Iterator[str]:
    """Makes JAX compute on a device, "auto", "cpu" or "gpu"; gives its name. Raises a ValueError if
    there is none.

    Before JAX starts its backends this sets flags for the whole process; later, the device of what
    is computed in the block.

    Args:
        cpu_devices: that a CPU is split into, for programs that are spread over devices.
        in_place: compute on a CPU in the thread that calls, as handing over short calls to another
            thread costs more than it gains.
        factorizes: what is computed on each device of a CPU factorises batches of matrices.
    """
    set_xla_flags(device)
    import jax

    _keep_compiled_programs()
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    if in_place:
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    is_said = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if cpu_devices > 1 and not is_said and jax.config.jax_num_cpu_devices < 1:
        with contextlib.suppress(RuntimeError):  # JAX has started
            jax.config.update("jax_num_cpu_devices", cpu_devices)
            if factorizes:
                _set_threads(cpu_devices + 1)
    found = first_device(device)
    is_default = device == "auto" or found == jax.devices()[0]
    # The name of its kind, as programs are spread over all devices of it.
    computes = contextlib.nullcontext() if is_default else jax.default_device(found.platform)
    on_cpu = found.platform == "cpu"
    if factorizes and on_cpu and len(jax.local_devices(backend="cpu")) >= _threads():
        computes = jax.default_device(found)  # alone, as JAX had started without a further thread
    with computes:
        yield "cpu" if on_cpu else found.device_kind


def first_device(device: str) -> Any:
    """JAX's first device of a kind, "auto", "cpu" or "gpu"; raises a ValueError if there is
    none."""
    import jax

    try:
        return jax.devices(None if device == "auto" else device)[0]
    except RuntimeError:
        instead = "use 'cpu'"
        if device == "cpu":
            only = jax.config.jax_platforms
            instead = f"JAX_PLATFORMS = {only!r} leaves it out: write '{only},cpu'"
        raise ValueError(f"device = {device!r}: not available here; {instead}") from None


def cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_one_thread(device: str) -> None:
    """Before JAX starts, makes a CPU, if one computes, do so in the thread that calls, in the whole
    process; unless the user's own NPROC or PJRT_NPROC, which XLA reads, says otherwise."""
    if _is_cpu(device):
        _set_threads(1)


def cpu_devices(factorizes: bool = False) -> int:
    """What a CPU is split into: a device for each core, or for each thread that XLA may have.

    Each device computes in a thread of XLA's pool. LAPACK's factorisation of a batch of matrices
    (`jnp.linalg.cholesky`, and brax's resets) hands parts to this pool and waits for them in its
    own thread: on all devices at once, without a further thread, they would wait for ever. The
    further thread makes programs without factorisations take 1.3 to 1.5 times as long.
    """
    return min(cores(), max(_threads() - factorizes, 1)) if _said_threads() else cores()


def _threads():
    """Of XLA's pool."""
    return _said_threads() or cores()


def _said_threads():
    """Those that a variable names, or 0."""
    threads = os.environ.get("PJRT_NPROC", os.environ.get("NPROC", ""))
    return int(threads) if threads.isdigit() else 0


def _set_threads(number):
    """Before JAX starts: of XLA's pool, for the whole process, unless a variable of the user's own
    says otherwise."""
    if "PJRT_NPROC" not in os.environ:
        os.environ.setdefault("NPROC", str(number))


def set_xla_flags(device: str) -> None:
    """Sets XLA's flags if a CPU computes; processes that are started inherit them."""
    if _is_cpu(device):
        theirs = os.environ.get("XLA_FLAGS", "")
        ours = [flag for flag in CPU_FLAGS if flag.partition("=")[0] not in theirs]
        os.environ["XLA_FLAGS"] = " ".join([*ours, *theirs.split()])


def _is_cpu(device):
    """Before JAX starts: whether a CPU computes."""
    return device == "cpu" or not metadata.entry_points(group="jax_plugins")


def _keep_compiled_programs():
    """In the user's cache folder, for the next start; JAX_COMPILATION_CACHE_DIR names another, and
    JAX_ENABLE_COMPILATION_CACHE=false turns it off."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rljax"
        with contextlib.suppress(OSError):  # no home, or one that cannot be written
            cache.mkdir(parents=True, exist_ok=True)
            jax.config.update("jax_compilation_cache_dir", str(cache))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
