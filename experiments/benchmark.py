"""How fast it is: environment steps per second, and seconds of compilation and start.

python experiments/benchmark.py
python experiments/benchmark.py --envs CartPole-v1 --sizes 16x5 256x32 --no-start
python experiments/benchmark.py --envs --checkpoints --no-start

For every environment and size (environments x steps), one seed:

environment   random actions, auto-reset, nothing else
acting        and the policy
rollout       and the values: acting, then the critic on the whole batch
training      and the update
bootstrap     the share of training that values of true successors take, against taking the next
              row's value everywhere, which is wrong at truncations
compile       seconds to trace and compile the training loop, with no compilation cache

Each figure is the median of several runs, taken in turn.

Start: seconds that importing takes, and those of the command `a2c.py` (whole process, and the
compilation in it) with an empty cache of compiled programs and again with a full one.

With --checkpoints, also what checkpoints cost a run of the CartPole preset of a minute, eight
seeds, ten checkpoints: the share of its time by which chunks of updates with a save before them
take longer than those without.
"""

import dataclasses
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import unittest.mock
from pathlib import Path
from typing import Literal

import common
import flags

from rljax.config import Config
from rljax.loggers import tables
from rljax.presets import preset
from rljax.utils import atomic_io

SPEEDS = ("environment", "acting", "rollout", "training")


@dataclasses.dataclass(frozen=True)
class Options:
    envs: tuple[str, ...] = ("CartPole-v1", "Breakout-MinAtar")
    """Environment ids."""
    sizes: tuple[str, ...] = ("16x5", "64x16", "256x32", "2048x16")
    """Environments x steps of a rollout."""
    repeats: int = 5
    """Runs of each figure."""
    seconds: float = 1.0
    """Length of a run, about."""
    start: bool = True
    """Also measure imports and the script, cold and warm."""
    checkpoints: bool = False
    """Also measure what checkpoints cost."""
    checkpoint_seconds: float = 60.0
    """Length of the run that is saved."""
    device: Literal[flags.DEVICES] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""
    json: Path | None = None
    """Also write the figures to this file."""


def main(argv: list[str]) -> int:
    if argv[:1] == ["a3c"]:
        import benchmark_a3c

        return benchmark_a3c.main(argv[1:])
    if argv[:1] == ["host"]:
        import benchmark_host

        return benchmark_host.main(argv[1:])
    if argv[:1] == ["sweep"]:
        import benchmark_sweep

        return benchmark_sweep.main(argv[1:])
    try:
        options = flags.parse_options(Options, __doc__, argv)
        sizes = [parse_size(size) for size in split(options.sizes)]
        start = measure_start(options.device) if options.start else None  # before this takes a GPU
        device = flags.set_device(options.device)
        disable_cache()
        configs = [
            config_for(env, *size).validate() for env in split(options.envs) for size in sizes
        ]
        if configs:
            print(f"{'steps/s':20}{'size':>10}", *(f"{name:>12}" for name in SPEEDS), end="")
            print("  bootstrap  compile")
        figures = [measure(config, options) for config in configs]
        checkpoints = measure_checkpoints(options) if options.checkpoints else None
    except (ValueError, TypeError) as error:
        return flags.fail(error)
    if options.json:
        measured = {"figures": figures, "start": start, "checkpoints": checkpoints}
        write_json(options.json, device, measured)
    return 0


def write_json(path, device, measured):
    """The figures, and what they depend on."""
    from rljax import runs

    record = {"device": device, "versions": runs.versions(), "commit": runs.git_commit()}
    atomic_io.write_json(path, {**record, **measured})


def disable_cache():
    import jax

    jax.config.update("jax_enable_compilation_cache", False)


def split(texts):
    """Names one by one, whether separated by spaces or by commas."""
    return [part for text in texts for part in text.split(",")]


def parse_size(size):
    found = re.fullmatch(r"(\d+)x(\d+)", size)
    if not found:
        raise ValueError(f"size {size!r}: must be environments x steps, such as 16x5")
    return int(found[1]), int(found[2])


def config_for(env, num_envs, num_steps):
    """Separate 64x64 tanh towers, or for MinAtar the convolution and 128 relu units."""
    config = Config(env=env, num_envs=num_envs, num_steps=num_steps, total_timesteps=2**30)
    if env.endswith("-MinAtar"):
        config = dataclasses.replace(config, hidden_sizes=(128,), activation="relu")
    return config


def measure(config, options) -> dict:
    import jax

    from rljax import a2c, learner

    state = jax.jit(a2c.init)(config, jax.random.key(0))
    programs = {
        "environment": compiled(environment_loop(config), state),
        "acting": compiled(rollout_loop(config, values=False), state),
        "rollout": compiled(rollout_loop(config, values=True), state),
    }
    started = time.perf_counter()
    programs["training"] = compiled(training_loop(config), state)
    compile_seconds = time.perf_counter() - started
    with unittest.mock.patch.object(learner, "successor_values", next_row):
        programs["next row"] = compiled(training_loop(config), state)

    speeds = in_turn(programs, state, config.batch_size, options)
    figures = {
        "env": config.env,
        "size": f"{config.num_envs}x{config.num_steps}",
        **{f"{name}_steps_per_second": round(speeds[name]) for name in SPEEDS},
        "bootstrap_share": round(1 - speeds["training"] / speeds["next row"], 4),
        "compile_seconds": round(compile_seconds, 2),
    }
    columns = (f"{speeds[name]:12,.0f}" for name in SPEEDS)
    print(f"{figures['env']:20}{figures['size']:>10}", *columns, end="")
    print(f"{figures['bootstrap_share']:>11.1%}{compile_seconds:>7.1f} s")
    return figures


def measure_start(device) -> dict:
    """Seconds until modules are imported, and of the script with a cold and with a warm cache."""
    imports = {
        name: median_seconds([sys.executable, "-c", f"import {name}"])
        for name in ("jax", "flax.linen", "gymnax", "rljax.a2c")
    }
    print("import, whole process:", *(f"{name} {s:.1f} s" for name, s in imports.items()))
    script = Path(__file__).with_name("a2c.py")
    figures = {"import_seconds": imports}
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        for name in ("cold", "warm"):
            run_dir = Path(folder) / name
            command = [sys.executable, script, "--quiet", "--run-dir", run_dir, "--device", device]
            started = time.perf_counter()
            subprocess.run(command, check=True, env=environ)
            seconds = time.perf_counter() - started
            summary = json.loads((run_dir / "summary.json").read_bytes())
            compiling = summary["compile_seconds"]
            print(f"a2c.py, {name} cache: {seconds:.1f} s, of which compilation {compiling:.1f} s")
            figures[name] = {"seconds": seconds, "compile_seconds": compiling}
    return figures


def median_seconds(command, times=3):
    def seconds():
        started = time.perf_counter()
        subprocess.run(command, check=True)
        return time.perf_counter() - started

    return statistics.median(seconds() for _ in range(times))


def measure_checkpoints(options) -> dict:
    """What saving the whole state ten times costs a run."""
    import numpy as np

    from rljax import a2c, evaluation, runs
    from rljax.runs.checkpoints import Saver

    config = dataclasses.replace(preset("a2c", "CartPole-v1"), total_timesteps=2**30)
    keys = common.seed_keys(range(8))
    chunks = a2c.chunks(config, keys)
    for _ in range(10):  # the compilation, and chunks that are still short
        states, metrics = next(chunks)
    updates, begun = int(metrics.updates[0]), time.perf_counter()
    plain, saved, waited, passed = [], [], 0.0, 0.0
    best = evaluation.best(None, states.learner, np.zeros(8), 0)
    rows = [dict.fromkeys(tables.METRICS, 0.123456789)] * 8 * 100
    with tempfile.TemporaryDirectory() as folder, Saver(Path(folder) / "run", keep=3) as saver:
        run_dir = runs.create(Path(folder) / "run", {})
        tables.append_metrics(run_dir, rows)
        while passed < options.checkpoint_seconds:
            saves = 10 * passed > options.checkpoint_seconds * (len(saved) + 0.5)
            started, before = time.perf_counter(), updates
            if saves:
                trees = {"state": states, "best": {"learner": best.learner}}
                saver.save(before, trees, {"tables": tables.mark(run_dir)})
                waited += time.perf_counter() - started
            states, metrics = next(chunks)
            updates = int(metrics.updates[0])
            seconds = time.perf_counter() - started
            (saved if saves else plain).append((seconds, updates - before))
            passed = time.perf_counter() - begun
    usual = statistics.median(seconds / updates for seconds, updates in plain)
    lost = sum(seconds - usual * updates for seconds, updates in saved)
    whole = sum(seconds for seconds, _ in plain + saved)
    figures = {
        "saves": len(saved),
        "seconds": round(whole, 2),
        "share": round(lost / whole, 4),
        "share_waited": round(waited / whole, 5),
    }
    print(
        f"{len(saved)} checkpoints in {whole:.0f} s of training take {figures['share']:.2%} of it;"
        f" training waits for {figures['share_waited']:.2%}"
    )
    return figures


def in_turn(programs, state, batch_size, options) -> dict[str, float]:
    """Median steps per second of each program, run in turn so that all see the same machine."""
    lengths = dict.fromkeys(programs, 1)
    for name, program in programs.items():
        while (seconds := timed(program, state, lengths[name])) < options.seconds / 2:
            lengths[name] = 2 * lengths[name]
        lengths[name] = max(1, round(lengths[name] * options.seconds / seconds))
    speeds = {name: [] for name in programs}
    for _ in range(options.repeats):
        for name, program in programs.items():
            seconds = timed(program, state, lengths[name])
            speeds[name].append(lengths[name] * batch_size / seconds)
    return {name: statistics.median(found) for name, found in speeds.items()}


def timed(program, state, length):
    import jax
    import numpy as np

    started = time.perf_counter()
    jax.block_until_ready(program(state, np.int32(length)))
    return time.perf_counter() - started


def compiled(function, state):
    import jax
    import numpy as np

    return jax.jit(function).lower(state, np.int32(1)).compile()


def environment_loop(config):
    """Random actions, with all chance of a rollout drawn before it."""
    import jax

    from rljax.envs.spaces import Discrete
    from rljax.networks.distributions import noise
    from rljax.rollout import make_env_and_network

    env, _ = make_env_and_network(config)
    space = env.spec.action_space
    shape = (config.num_steps, config.num_envs)

    def rollout(_, carry):
        key, env_state, total = carry
        key, key_action, key_env = jax.random.split(key, 3)
        chance = noise(space, key_action, shape)
        discrete = isinstance(space, Discrete)
        actions = (chance * space.n).astype("int32") if discrete else chance.clip(-1, 1)
        draws = env.draw(key_env, shape)

        def step(carry, action_and_draw):
            env_state, total = carry
            action, draw = action_and_draw
            action = action.reshape(config.num_envs, *space.shape)
            env_state, answer = jax.vmap(env.step)(draw, env_state, action)
            return (env_state, total + answer.reward.sum() + answer.obs.sum()), None

        (env_state, total), _ = jax.lax.scan(step, (env_state, total), (actions, draws))
        return key, env_state, total

    def loop(state, length):
        carry = (state.actor.key, state.actor.env_state, 0.0)
        return jax.lax.fori_loop(0, length, rollout, carry)

    return loop


def rollout_loop(config, values):
    import jax

    from rljax import rollout
    from rljax.rollout import make_env_and_network

    env, network = make_env_and_network(config)

    def collect(_, carry):
        state, total = carry
        actor, batch = rollout.collect(config, env, network, state.learner, state.actor)
        if values:
            obs = batch.obs.reshape(-1, *env.spec.obs_shape)
            total += network.apply(state.learner.params, obs, method="critic").sum()
        total = sum((leaf.sum() for leaf in jax.tree.leaves(batch)), start=total)
        return state._replace(actor=actor), total

    return lambda state, length: jax.lax.fori_loop(0, length, collect, (state, 0.0))


def training_loop(config):
    import jax

    from rljax import a2c

    update = lambda _, state: a2c.update(config, state)[0]  # noqa: E731
    return lambda state, length: jax.lax.fori_loop(0, length, update, state)


def parts(config) -> dict[str, float]:
    """The shares that environment, policy and gradient have in training."""
    import jax

    from rljax import a2c

    state = jax.jit(a2c.init)(config, jax.random.key(0))
    programs = {
        "environment": compiled(environment_loop(config), state),
        "acting": compiled(rollout_loop(config, values=False), state),
        "training": compiled(training_loop(config), state),
    }
    speeds = in_turn(programs, state, config.batch_size, Options(seconds=0.2))
    environment, acting = (speeds["training"] / speeds[name] for name in ("environment", "acting"))
    return {"environment": environment, "policy": acting - environment, "gradient": 1 - acting}


def next_row(value, values, final_obs, truncated):
    """Values of the next row, and of the true successors in the last row alone."""
    import jax.numpy as jnp

    return jnp.concatenate([values[1:], value(final_obs[-1])[None]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
