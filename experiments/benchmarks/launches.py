"""What an update of A2C launches on a GPU, without one: XLA compiles for an H100 that is not there.

python experiments/benchmarks/launches.py
python experiments/benchmarks/launches.py --cases "CartPole-v1 64x16 1" --list

A case is an environment, environments x steps of a rollout, and the agents trained in one program.
A GPU takes 2 to 5 microseconds for a launch, whatever it computes, which is the time of an update
of small networks. All figures but the last are exact for a version of XLA, and the same every time.

launches    kernels, copies and library calls of one update of all agents
in loops    those in loops, times the iterations; outside: all others
unknown     loops whose length the compiler does not know: each iteration waits for the host, and
            one iteration is counted
rare        launches more if every conditional takes its longest branch; else the shortest counts
MiB         of temporary memory: beside the states, which the update overwrites
compile     seconds to trace and compile

--list prints every launch: its kind and times, its result, and the operation that it comes from.
"""

import dataclasses
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from rljax import a2c
from rljax.cli import benchmark

CASES = (
    "CartPole-v1 4096x16 1",
    "CartPole-v1 512x16 8",
    "Breakout-MinAtar 1024x16 1",
    "image_env:MovingBlock 2048x16 1",  # of the file beside this one
)
COLUMNS = {"case": "", **dict.fromkeys(("launches", "in loops", "outside", "unknown", "rare"), "d")}
COLUMNS |= {"MiB": ",.0f", "compile": ".1f"}
TARGET = Path(__file__).with_name("h100.txtpb")
PLUGIN = (
    "JAX's CUDA plugin is not installed; it needs no GPU and no driver, but an environment of its"
    " own: python3.12 -m venv .venv-gpu && .venv-gpu/bin/pip install -e ."
    " jax==0.11.2 jax-cuda13-plugin==0.11.2 jax-cuda13-pjrt==0.11.2"
)
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}
FREE |= {"fusion-done", "copy-done", "async-done"}  # what was launched before has ended


@dataclasses.dataclass(frozen=True)
class Options:
    cases: tuple[str, ...] = CASES  # What is compiled, in this order.
    list: bool = False  # Print every launch.


class Operation(NamedTuple):
    """An operation of a compiled program that launches something, or a loop."""

    kind: str
    shape: str  # of its result
    source: str  # the operation in JAX
    times: int  # in one run of the program
    depth: int  # of loops around it
    trips: int | None = None  # of a loop, where the compiler knows


def measure(options):
    if not has_plugin():
        raise ValueError(PLUGIN)
    jax.config.update("jax_platforms", "cpu")  # where JAX traces; a GPU's driver is not started
    jax.config.update("jax_enable_compilation_cache", False)
    cases = {case: benchmark.parsed_case(case) for case in options.cases}
    width = max(map(len, ("", *cases)))
    return "NVIDIA H100, not there", benchmark.table(COLUMNS, compiled(cases, options), width)


def has_plugin():
    plugins = metadata.entry_points(group="jax_plugins")
    return any(plugin.name.startswith("xla_cuda") for plugin in plugins)


def compiled(cases, options):
    for case, (config, agents) in cases.items():
        begun = perf_counter()
        program = compile_for_h100(update, config, states(config, agents), donate_argnums=1)
        seconds, text = perf_counter() - begun, program.as_text()
        memory = program.memory_analysis().temp_size_in_bytes
        yield {"case": case, **counts(text), "MiB": memory / 2**20, "compile": seconds}
        if options.list:
            print(*map(line, operations(text)), sep="\n")


def update(config, states):
    return jax.vmap(a2c.update, in_axes=(None, 0))(config, states)


def states(config, agents):
    """The shapes of the states of agents."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), agents))
    return jax.eval_shape(a2c.init_seeds, config, keys)


def compile_for_h100(function: Callable, *args: Any, **jit: Any) -> jax.stages.Compiled:
    """A function's program for arguments like these: arrays or `jax.ShapeDtypeStruct`s, in pytrees.
    XLA chooses matrix products without measuring them, so their kind is not exact."""
    topology = topologies.get_topology_desc(
        "", platform="cuda", target_config=TARGET.read_text(), topology="1x1x1"
    )
    device = jax.sharding.SingleDeviceSharding(topology.devices[0])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), args)
    traced = jax.jit(function, **jit).trace(*shapes)
    return traced.lower(lowering_platforms=("cuda",)).compile()


def counts(text: str) -> dict[str, int]:
    """The columns of the table that a compiled program's text gives."""
    found = list(operations(text))
    inside = launches(op for op in found if op.depth)
    total = launches(found)
    return {
        "launches": total,
        "in loops": inside,
        "outside": total - inside,
        "unknown": sum(op.kind == "while" and op.trips is None for op in found),
        "rare": launches(operations(text, branch=max)) - total,
    }


def launches(found: Iterable[Operation]) -> int:
    return sum(op.times for op in found if op.kind != "while")


def operations(text: str, branch: Callable = min) -> Iterator[Operation]:
    """The operations of a compiled program in their order; of each conditional itself, which copies
    its predicate to the host, and the branch with the fewest or (`max`) the most launches."""
    computations, name = {}, None
    for row in text.splitlines():
        row = re.sub(r"/\*index=\d+\*/", "", row)
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$", row):
            name = "ENTRY" if head[1] else head[2]
            computations[name] = []
        elif found := re.match(r"\s+(?:ROOT )?%?[\w.\-]+ = (\(.*?\)|\S+) ([\w\-]+)\((.*)", row):
            computations[name].append(found.groups())
    return walk(computations, "ENTRY", branch, times=1, depth=0)


def walk(computations, name, branch, times, depth):
    for shape, kind, rest in computations[name]:
        source = (re.findall(r'op_name="([^"]*)"', rest) or [""])[0]
        op = Operation(kind, shape, source, times, depth)
        if kind == "while":
            trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', rest)
            op = op._replace(trips=int(trips[1]) if trips else None)
            inside = times * (1 if op.trips is None else op.trips), depth + 1
            yield op
            for called in named("body" if trips else "condition|body", rest):
                yield from walk(computations, called, branch, *inside)
        elif kind == "call":
            (called,) = named("to_apply", rest)
            yield from walk(computations, called, branch, times, depth)
        elif kind == "conditional":
            names = named("branch_computations|true_computation|false_computation", rest)
            yield op
            branches = [list(walk(computations, each, branch, times, depth)) for each in names]
            yield from branch(branches, key=launches)
        elif kind not in FREE:
            yield op


def named(attributes, rest):
    """The computations that an operation's attributes name."""
    found = re.findall(rf"\b(?:{attributes})=(\{{[^}}]*\}}|%?[\w.\-]+)", rest)
    return [name for each in found for name in re.findall(r"[\w.\-]+", each)]


def line(op):
    times = f"x{'?' if op.trips is None else op.trips}" if op.kind == "while" else f"{op.times}"
    return f"{'    ' * op.depth}{op.kind:16}{times:>5}  {op.shape[:50]:50}  {op.source[-80:]}"


if __name__ == "__main__":
    sys.exit(benchmark.main(__doc__, measure, Options()))
