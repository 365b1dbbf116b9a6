"""How fast A3C is, and where its workers' time goes.

python experiments/benchmark.py a3c
python experiments/benchmark.py a3c --envs gymnasium/CartPole-v1 --workers 1 2 --no-start

For every environment, size (environments of a worker x steps of a rollout, t_max) and number of
workers, once all work: steps and gradients per second of all together, mean staleness, and the
shares of their time by phase; the network is separate 64x64 tanh towers. Environments in JAX,
policy and gradient are one program (*), and its time is split by measuring environment and acting
without the rest, on one thread; what calling it takes is the gradient's.

holder      gradients per second that a parameter holder applies and publishes, no worker running
transport   microseconds for a message to reach another process, and for parameters to come back,
            by what `rljax.a3c` uses and by the queues of `multiprocessing`
start       seconds from the command `a3c.py` to its first row of metrics, which is of four
            gradients, with an empty cache of compiled programs and again with a full one
"""

import contextlib
import dataclasses
import multiprocessing
import os
import select
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter, sleep

import benchmark
import flags
import numpy as np

from rljax.a3c import crew, transport
from rljax.config import Config, Workers
from rljax.presets import base

TIMES = 5
"""Runs of each figure of the holder and the transport."""

spawning = multiprocessing.get_context("spawn")


@dataclasses.dataclass(frozen=True)
class Options:
    envs: tuple[str, ...] = ("CartPole-v1", "gymnasium/CartPole-v1")
    """Environment ids."""
    workers: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of workers."""
    sizes: tuple[str, ...] = ("1x5", "8x20")
    """Environments of a worker x steps of a rollout."""
    seconds: float = 5.0
    """Length of a measurement."""
    repeats: int = 1
    """Runs of each row of the table; the one of median speed is given."""
    start: bool = True
    """Also measure the script's start, cold and warm."""
    json: Path | None = None
    """Also write the figures to this file."""


def main(argv: list[str]) -> int:
    """Measures; returns the exit status."""
    try:
        options = flags.parse_options(Options, __doc__, argv)
        sizes = [benchmark.parse_size(size) for size in benchmark.split(options.sizes)]
        configs = [config_for(env, *s) for env in benchmark.split(options.envs) for s in sizes]
        crews = [Workers(number).validate() for number in options.workers]
        start = measure_start() if options.start else None
        device = flags.set_device("cpu")
        crew.start_server()
        one_thread()
        figures = [row for config in configs for row in measure(config, crews, options)]
        holder = measure_holder(options.seconds)
        moved = measure_transport(options.seconds)
    except (ValueError, TypeError) as error:
        return flags.fail(error)
    if options.json:
        measured = {"figures": figures, "holder": holder, "transport": moved, "start": start}
        measured["cores"] = len(os.sched_getaffinity(0))
        benchmark.write_json(options.json, device, measured)
    return 0


def config_for(env, num_envs, num_steps) -> Config:
    """Of a run that does not end."""
    asked = {"env": env, "num_envs": num_envs, "num_steps": num_steps, "total_timesteps": 2**30}
    return dataclasses.replace(base("a3c"), **asked).validate()


def one_thread():
    """As in holder and workers."""
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)


def measure(config, crews, options):
    """Rows of the table for a config, one for each number of workers."""
    from rljax import rollout
    from rljax.a3c.messages import PHASES
    from rljax.host import HostEnv

    name, size = config.env, f"{config.num_envs}x{config.num_steps}"
    print(f"{'steps/s':24}{'size':>6}  workers{'steps/s':>10}  gradients/s  staleness", end="")
    print(*(f"{phase:>11}" for phase in PHASES))
    environment = acting = None
    if not isinstance(rollout.make_agent(config)[0], HostEnv):
        name = f"{name} *"
        with ProcessPoolExecutor(1, mp_context=crew.context) as pool:  # settled like a worker
            environment, acting = pool.submit(parts_of_program, config).result()
    for workers in crews:
        workers = dataclasses.replace(workers, envs_per_worker=config.num_envs)
        runs = (measure_run(config, workers, options.seconds) for _ in range(options.repeats))
        speed, staleness, spent = sorted(runs, key=lambda run: run[0])[options.repeats // 2]
        shares = dict(zip(PHASES, (spent / spent.sum()).tolist()))
        if acting:
            whole = shares["gradient"]
            parts = (environment, acting - environment, 1 - acting)
            shares |= zip(("environment", "policy", "gradient"), (part * whole for part in parts))
        steps, number = speed * config.batch_size, workers.num_workers
        print(f"{name:24}{size:>6}{number:9}{steps:10,.0f}{speed:13,.0f}{staleness:11.2f}", end="")
        print(*(f"{share:11.1%}" for share in shares.values()), flush=True)
        figures = {"steps_per_second": round(steps), "gradients_per_second": round(speed)}
        figures |= {"staleness_mean": round(staleness, 3), "shares": shares}
        yield {"env": config.env, "size": size, "workers": number, **figures}


def measure_run(config, workers, seconds):
    """(gradients per second, mean staleness, the workers' seconds by phase) of a run that is
    measured for so long from a second after all workers have begun to work."""
    import jax

    from rljax import a3c

    statuses = []
    chunks = a3c.chunks(config, workers, jax.random.key(0), watch=statuses.append)

    def read(due, all_work=False):
        """At the first chunk from then on."""
        for state, _ in chunks:
            now, each = perf_counter(), statuses.pop().workers
            if now >= due and (not all_work or all(w.state == "working" for w in each)):
                return now, state.counts.staleness, sum(w.seconds for w in each)

    with contextlib.closing(chunks):
        working, *_ = read(0, all_work=True)
        begun, *before = read(working + 1)
        ended, *after = read(begun + seconds)
    staleness, spent = (b - a for a, b in zip(before, after))
    gradients = staleness.sum()
    mean = staleness @ np.arange(len(staleness)) / gradients
    return gradients / (ended - begun), float(mean), spent


def parts_of_program(config):
    """(environment, acting): their shares of a worker's program and the call of it."""
    one_thread()
    import jax

    from rljax import a2c, learner, rollout
    from rljax.a3c import messages

    env, network = rollout.make_agent(config)

    @jax.jit
    def work(state, actor):
        actor, batch = rollout.collect(config, env, network, state, actor)
        episodes, given = learner.contribute(config, network, state, actor.episodes, batch)
        return actor._replace(episodes=episodes), messages.ravel(given.gradients)

    def whole(state, length):
        actor, state = state.actor, state.learner._replace(opt_state=())
        for _ in range(length):
            actor, gradient = work(state, actor)
        return actor, gradient

    state = jax.jit(a2c.init)(config, jax.random.key(0))
    environment = benchmark.compiled(benchmark.environment_loop(config), state)
    acting = benchmark.compiled(benchmark.rollout_loop(config, values=False), state)
    programs = {"environment": environment, "acting": acting, "whole": whole}
    options = benchmark.Options(seconds=0.2)
    speeds = benchmark.in_turn(programs, state, config.batch_size, options)
    return speeds["whole"] / speeds["environment"], speeds["whole"] / speeds["acting"]


def measure_holder(seconds) -> dict:
    import jax

    from rljax import a3c
    from rljax.a3c import messages

    config, workers = config_for("CartPole-v1", 1, 5), Workers(1)
    layout, state = messages.layout(config), a3c.init(config, workers, jax.random.key(0))
    holder = a3c.ParameterHolder(config, workers, layout, state.learner, state.counts, state.row)
    parameters = transport.SharedParameters(crew.context, messages.size(layout.published))
    record = np.zeros((), layout.record)
    record["gradient"] = 0.01

    def take():
        holder.push(as_bytes(record), 0)
        parameters.publish(holder.version, holder.published())
        return 1

    speed = round(1 / seconds_each(take, seconds))
    print(f"holder alone: {speed:,} gradients/s of {parameters.size:,} parameters")
    return {"gradients_per_second": speed, "parameters": parameters.size}


def measure_transport(seconds) -> dict:
    from rljax.a3c import messages

    layout = messages.layout(config_for("CartPole-v1", 1, 5))
    record = np.zeros((), layout.record)
    vector = np.zeros(messages.size(layout.published), np.float32)
    figures = {
        "push": {
            "rljax": through_pipe(record, seconds),
            "SimpleQueue": through_queue(spawning.SimpleQueue(), record, seconds),
            "Queue": through_queue(spawning.Queue(2), record, seconds),
        },
        "pull": {
            "rljax": through_memory(vector, seconds),
            "SimpleQueue": through_queue(spawning.SimpleQueue(), vector, seconds),
        },
    }
    for name, ways in figures.items():
        print(f"{name}, microseconds:", *(f"{way} {s * 1e6:.1f}" for way, s in ways.items()))
    return {f"{name}_seconds": ways for name, ways in figures.items()}


def through_pipe(record, seconds):
    (take_end, put_end), (stop, _never) = (spawning.Pipe(duplex=False) for _ in range(2))
    reader, come = transport.Reader(take_end, record.nbytes, record.nbytes), select.poll()
    come.register(reader.fileno(), select.POLLIN)

    def take():
        come.poll()
        return len([np.frombuffer(content, record.dtype) for _, content in reader.get()])

    with running(put_bytes, put_end, stop, record, begun=reader.waiting):
        return seconds_each(take, seconds)


def through_queue(queue, array, seconds):
    with running(put_arrays, queue, array, begun=lambda: not queue.empty()):
        return seconds_each(lambda: queue.get() is not None, seconds)


def through_memory(vector, seconds):
    """Of versions that another process has just published."""
    parameters = transport.SharedParameters(spawning, vector.size)
    version, found, into = 0, [], np.empty_like(vector)
    with running(publish, parameters, vector, begun=lambda: parameters.version[0]):
        end = perf_counter() + seconds
        while perf_counter() < end:
            if parameters.version[0] > version:
                begun = perf_counter()
                version = parameters.read(into)
                found.append(perf_counter() - begun)
    return statistics.median(found)


@contextlib.contextmanager
def running(target, *args, begun):
    """A process that works until it is killed, at the end; the context starts when it works."""
    process = spawning.Process(target=target, args=args, daemon=True)
    process.start()
    try:
        while not begun():
            if not process.is_alive():
                raise RuntimeError(f"{target.__name__}: exit status {process.exitcode}")
            sleep(0.01)
        yield
    finally:
        process.kill()
        process.join()


def put_bytes(put_end, stop, record):
    queue = transport.Queue(put_end, stop)
    while True:
        queue.put(0, as_bytes(record))


def put_arrays(queue, array):
    while True:
        queue.put(array)


def publish(parameters, vector):
    while True:
        parameters.publish(int(parameters.version[0]) + 1, vector)
        sleep(1e-4)  # as if there were gradients to apply


def as_bytes(record):
    return memoryview(record.reshape(1).view(np.uint8))


def seconds_each(take, seconds):
    """Median over several runs, so long together; `take` returns how many it took."""

    def run():
        count, begun = take(), perf_counter()
        count = 0
        while (passed := perf_counter() - begun) < seconds / TIMES or not count:
            count += take()
        return passed / count

    run()  # the first one compiles
    return statistics.median(run() for _ in range(TIMES))


def measure_start() -> dict:
    script, figures = Path(__file__).with_name("a3c.py"), {}
    asked = "--num-workers 4 --total-timesteps 2000 --eval-episodes 0 --quiet".split()
    with tempfile.TemporaryDirectory() as folder:
        # Scripts keep what takes 0.2 seconds to compile, but leave a folder that is named alone.
        least = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
        environ = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache", **least}
        for name in ("cold", "warm"):
            metrics, begun = Path(folder, name, "metrics.csv"), perf_counter()
            command = [sys.executable, script, *asked, "--run-dir", metrics.parent]
            with subprocess.Popen(command, env=environ) as process:
                while process.poll() is None and not has_row(metrics):
                    sleep(0.01)
                figures[f"{name}_seconds"] = perf_counter() - begun
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, command)
            print(f"a3c.py, {name} cache: first row after {figures[f'{name}_seconds']:.1f} s")
    return figures


def has_row(path):
    return path.exists() and path.read_text().count("\n") > 1
