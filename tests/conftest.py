"""Settings of the tests, which hold from before JAX starts, and what is reported of their run.

Environment variables: RLJAX_NO_SKIPS=1 makes a skipped test fail, unless the machine itself lacks
what it needs; RLJAX_SKIPPED names a file to which the ids of skipped tests are written.
"""

import gc
import os
import tempfile
from collections import Counter
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

# Compiled programs are shared by the processes of one session, and by nothing else: tests neither
# fill nor trust the user's cache.
if "PYTEST_XDIST_WORKER" not in os.environ:
    PROGRAMS = tempfile.TemporaryDirectory(prefix="rljax-programs-", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = PROGRAMS.name
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "true"
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# Processes that tests start find the helpers, too.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).parent / "helpers"), os.environ.get("PYTHONPATH")])
)

# A script's `main`, called in a test, leaves those that it starts later their threads.
os.environ.setdefault("NPROC", str(os.cpu_count()))

# Processes that share a GPU must not each take most of its memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax

from rljax.utils.platform import CPU_FLAGS

jax.config.update("jax_num_cpu_devices", 2)  # sweeps are spread over them
jax.config.update("jax_numpy_rank_promotion", "raise")

# In reasons of skips: what a machine has or lacks, and no package brings; and which JAX was found.
MACHINE = (
    "no GPU",
    "there is a GPU",
    "needs a display",
    "no Chromium",
    "needs root",
    "not allowed here",
    "another JAX",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return without_skips((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return without_skips((yield))


def without_skips(report):
    """The report of a test or module; failed if it is a skip that RLJAX_NO_SKIPS forbids."""
    if os.environ.get("RLJAX_NO_SKIPS") != "1" or not is_skip(report):
        return report
    path, line, reason = report.longrepr
    if not any(words in reason for words in MACHINE):
        report.outcome = "failed"
        report.longrepr = f"{path}:{line}: {reason}; with RLJAX_NO_SKIPS=1 nothing may be skipped"
    return report


def is_skip(report):
    return report.skipped and not hasattr(report, "wasxfail")


def pytest_terminal_summary(terminalreporter, config):
    """Writes the ids of skipped tests, and with --durations prints the seconds of each file."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    reports = [report for report in reports if hasattr(report, "outcome")]
    if path := os.environ.get("RLJAX_SKIPPED"):
        skipped = {report.nodeid: None for report in reports if is_skip(report)}
        Path(path).write_text("".join(f"{nodeid}\n" for nodeid in skipped))
    if config.option.durations is None:
        return
    seconds = Counter()
    for report in reports:
        seconds[report.nodeid.split("::")[0]] += getattr(report, "duration", 0)
    terminalreporter.section("seconds per file")
    for file, total in seconds.most_common():
        terminalreporter.write_line(f"{total:8.1f} {file}")


def pytest_configure(config):
    """Without an accelerator, compiling takes most of the time: by default it does little. With
    one, products are of float32, as the tolerances of the tests are: a GPU's default is TF32."""
    if entry_points(group="jax_plugins"):
        jax.config.update("jax_default_matmul_precision", "highest")
        return
    flags = [*CPU_FLAGS]  # a run would set them, and programs are kept by the flags that are set
    if config.option.markexpr == "not slow":
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
        jax.config.update("jax_disable_most_optimizations", True)
        if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # an unknown one is fatal
            flags.append("--xla_cpu_use_fusion_emitters=false")
            flags.append("--xla_cpu_parallel_codegen_split_count=1")
    os.environ["XLA_FLAGS"] = " ".join([*flags, os.environ.get("XLA_FLAGS", "")])


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """After a module, lets go of compiled programs when there are many: each takes several of the
    memory mappings that Linux allows a process (65,530), and one more ends it without a word."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 20_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="module")
def undrawn():
    """Runs draw no learning curve: it takes half the time of a small one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rljax.analysis.plot_learning_curves", lambda *_, **how: None)
        yield
