"""How fast A2C is on a GPU: the tests that matter there, then trained steps per second.

python experiments/benchmarks/gpu.py --json gpu.jsonl --seconds 400
python experiments/benchmarks/gpu.py --no-tests --cases "CartPole-v1 64x16 1" --seconds 30

A case is an environment, environments x steps of a rollout, and the agents trained in one program.
Cases are measured in the order given for as long as there is time, and each is written at once. The
first is profiled, and measured again without command buffers.

steps/s     trained steps of all environments of all agents
update      microseconds of one update of all agents
kernels     launched by an update; busy: the share of the time in which one runs
memory      MiB that an update takes beside the states
compile     seconds to trace and compile, with no compilation cache
"""

import contextlib
import dataclasses
import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from time import perf_counter

import jax
import numpy as np

from rljax import a2c
from rljax.cli import benchmark, fail, flags
from rljax.runs import directory
from rljax.utils import atomic_io, platform

SIZES = ("4096x16", "65536x16", "16384x16", "262144x16")
CASES = (
    *(f"CartPole-v1 {size} 1" for size in SIZES[:2]),
    "CartPole-v1 16x5 2048",
    "Breakout-MinAtar 4096x16 1",
    *(f"CartPole-v1 {size} 1" for size in SIZES[2:]),
    "CartPole-v1 512x16 8",
    "Breakout-MinAtar 1024x16 1",
    "Breakout-MinAtar 16384x16 1",
)
TESTS = "accelerated learner a2c rollout returns distributions optimizers evaluation".split()
WITHOUT_BUFFERS = "--xla_gpu_enable_command_buffer="
COLUMNS = {"case": "", "steps/s": ",.0f", "update": ",.0f", "memory": ",.0f", "compile": ".1f"}


@dataclasses.dataclass(frozen=True)
class Options:
    json: Path = Path("runs/gpu.jsonl")  # Each result is added to this file as a line.
    seconds: float = 400.0  # After this, nothing more is begun.
    cases: tuple[str, ...] = CASES  # What is measured, in this order.
    tests: bool = True  # Run the tests first.
    profile: bool = True  # Profile the first case, and measure it without command buffers.


def main():
    begun = perf_counter()
    try:
        (options,) = flags.parse((Options(),), __doc__, sys.argv[1:])
        cases = [benchmark.parsed_case(case) for case in options.cases]
        with platform.computing_on("auto") as device:
            jax.config.update("jax_enable_compilation_cache", False)
            machine = directory.machine(device)

            def write(result):
                benchmark.add_line(options.json, {**machine, **result})

            if options.tests:
                write({"tests": run_tests(seconds=120)})
            rows = measured(cases, options, begun + options.seconds, write)
            benchmark.table(COLUMNS, rows, width=max(map(len, options.cases)))
    except (ValueError, TypeError, atomic_io.WriteError) as error:
        return fail(error)
    print(f"figures: {options.json}")
    return 0


def run_tests(seconds):
    """What pytest says in its last line, in processes that share the device; when the time is over
    it is interrupted, and reports what ran."""
    root = Path(__file__).parents[2]
    files = [str(path) for name in TESTS for path in (root / "tests").rglob(f"test_{name}.py")]
    processes = str(max(1, platform.cores() - 4))
    command = [sys.executable, "-m", "pytest", "-q", "-n", processes, "--tb=short", *files]
    with tempfile.TemporaryFile("w+") as log:
        tests = subprocess.Popen(command, cwd=root, stdout=log, stderr=log)
        try:
            tests.wait(seconds)
        except subprocess.TimeoutExpired:
            tests.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                tests.wait(20)
        finally:
            tests.kill()
        log.seek(0)
        lines = log.read().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    print(*failed, *lines[-1:], sep="\n")
    return {"failed": failed, "said": lines[-1:]}


def measured(cases, options, end, write):
    for case, (config, agents) in zip(options.cases, cases):
        if perf_counter() > end:
            print(f"out of time before {case!r}")
            return
        try:
            found = measure(config, agents, profiled=options.profile and case == options.cases[0])
        except jax.errors.JaxRuntimeError as error:  # no memory, for example
            write({"case": case, "error": str(error)[:500]})
            print(f"{case}: {str(error).splitlines()[0]}")
            continue
        write({"case": case, "xla_flags": os.environ.get("XLA_FLAGS", ""), **found})
        yield {"case": case, **found}
        if options.profile and case == options.cases[0]:
            without_buffers(case, options.json, end - perf_counter())


def measure(config, agents, profiled):
    keys = jax.random.split(jax.random.key(0), agents)
    states = jax.block_until_ready(a2c.init_seeds(config, keys))

    def update(config, states):
        return jax.vmap(partial(a2c.update, config))(states)

    def many(states, number):
        return jax.lax.fori_loop(0, number, lambda _, states: update(config, states), states)

    begun = perf_counter()
    program = jax.jit(many, donate_argnums=0).lower(states, np.int32(1)).compile()
    found = {"compile": perf_counter() - begun}
    number, taken, states = 1, [], jax.block_until_ready(program(states, np.int32(1)))
    while len(taken) < 5:
        begun = perf_counter()
        states = jax.block_until_ready(program(states, np.int32(number)))
        seconds = perf_counter() - begun
        if seconds > 0.4:
            taken.append(seconds / number)
        else:
            number = max(number + 1, int(number * min(10, 0.5 / seconds)))
    update_seconds = float(np.median(taken))
    found |= {
        "steps/s": agents * config.batch_size / update_seconds,
        "update": 1e6 * update_seconds,
        "fastest_update": 1e6 * min(taken),
        "memory": program.memory_analysis().temp_size_in_bytes / 2**20,
    }
    if profiled:
        found["profile"] = profile(lambda: program(states, np.int32(3)), updates=3)
    return found


def profile(run, updates):
    """What an update launches on the device, from the trace that JAX writes."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(run())
        (path,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    streams = {
        (event["pid"], event["tid"])
        for event in events
        if event.get("name") == "thread_name" and "Stream" in event["args"]["name"]
    }
    kernels = [e for e in events if e.get("ph") == "X" and (e["pid"], e["tid"]) in streams]
    if not kernels:  # a CPU
        return None
    length, number = Counter(), Counter()
    for event in kernels:
        length[event["name"]] += event["dur"] / updates
        number[event["name"]] += 1 / updates
    first, last = min(e["ts"] for e in kernels), max(e["ts"] + e["dur"] for e in kernels)
    found = {
        "kernels": len(kernels) / updates,
        "busy": sum(event["dur"] for event in kernels) / (last - first),
        "longest": [[name, number[name], us] for name, us in length.most_common(12)],
    }
    print(f"profile: {found['kernels']:.0f} kernels an update, busy {found['busy']:.0%}")
    return found


def without_buffers(case, path, seconds):
    """The same in another process, as XLA's flags are read at its start."""
    xla_flags = f"{os.environ.get('XLA_FLAGS', '')} {WITHOUT_BUFFERS}".strip()
    shared = {"XLA_FLAGS": xla_flags, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    options = ["--no-tests", "--no-profile", "--cases", case, "--json", str(path)]
    command = [sys.executable, __file__, *options]
    how = dict(env={**os.environ, **shared}, capture_output=True, text=True)
    try:
        done = subprocess.run(command, timeout=max(1, seconds), **how)
    except subprocess.TimeoutExpired:
        print("out of time without command buffers")
    else:
        print(f"without command buffers: {done.stdout.splitlines()[1:2] or done.stderr[-300:]}")


if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # tests are other processes
    sys.exit(main())
