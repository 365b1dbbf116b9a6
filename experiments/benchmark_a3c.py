"""How fast A3C is, and where its workers' time goes.

python experiments/benchmark.py a3c
python experiments/benchmark.py a3c --envs gymnasium/CartPole-v1 --workers 1 2 --no-start

For every environment, size (environments of a worker x steps of a rollout, t_max) and number of
workers, once all work: steps and gradients per second of all together, mean staleness, and the
shares of their time by phase; the network is separate 64x64 tanh towers.

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
from functools import partial
from pathlib import Path
from time import perf_counter, sleep

import benchmark
import flags
import numpy as np

from rljax.a3c import transport
from rljax.config import Config, WorkerConfig
from rljax.presets import base
from rljax.utils import forkserver

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
    try:
        options = flags.parse_options(Options, __doc__, argv)
        sizes = [benchmark.parse_size(size) for size in benchmark.split(options.sizes)]
        configs = [config_for(env, *s) for env in benchmark.split(options.envs) for s in sizes]
        crews = [WorkerConfig(number).validate() for number in options.workers]
        measured = {"start": measure_start()} if options.start else {}
        device = flags.set_device("cpu")
        forkserver.start_server()
        import jax

        jax.config.update("jax_cpu_enable_async_dispatch", False)
        measured["figures"] = [row for c in configs for row in measure(c, crews, options)]
        measured["alone"] = measure_alone(options.seconds)
    except (ValueError, TypeError) as error:
        return flags.fail(error)
    if options.json:
        cores = len(os.sched_getaffinity(0))
        benchmark.write_json(options.json, device, {"cores": cores, **measured})
    return 0


def config_for(env, num_envs, num_steps) -> Config:
    """Of a run that does not end."""
    asked = {"env": env, "num_envs": num_envs, "num_steps": num_steps, "total_timesteps": 2**30}
    return dataclasses.replace(base("a3c"), **asked).validate()


def measure(config, crews, options):
    """The table of a config, a row for each number of workers."""
    from rljax import rollout
    from rljax.a3c.messages import PHASES
    from rljax.envs.host_envs import HostEnv

    parts, size = {}, f"{config.num_envs}x{config.num_steps}"
    if not isinstance(rollout.make_env_and_network(config)[0], HostEnv):
        # In a process of one thread, as a worker is.
        with ProcessPoolExecutor(1, mp_context=forkserver.context) as pool:
            parts = pool.submit(benchmark.parts, config).result()
    row = "{:24}" + " {:>11}" * (5 + len(PHASES))
    print(row.format("A3C", "size", "workers", "steps/s", "gradients/s", "staleness", *PHASES))
    for workers in crews:
        workers = dataclasses.replace(workers, envs_per_worker=config.num_envs)
        runs = [measure_run(config, workers, options.seconds) for _ in range(options.repeats)]
        speed, staleness, spent = sorted(runs, key=lambda run: run[0])[len(runs) // 2]
        shares = dict(zip(PHASES, (spent / spent.sum()).tolist()))
        shares |= {phase: part * shares["gradient"] for phase, part in parts.items()}
        steps, number = speed * config.batch_size, workers.num_workers
        cells = [f"{steps:,.0f}", f"{speed:,.0f}", f"{staleness:.2f}"]
        cells += [f"{share:.1%}" for share in shares.values()]
        print(row.format(config.env + " *" * bool(parts), size, number, *cells), flush=True)
        figures = dict(steps_per_second=steps, gradients_per_second=speed, staleness=staleness)
        yield {"env": config.env, "size": size, "workers": number, **figures, "shares": shares}
    if parts:
        print("* one program; its time, with that of the call, is split as its parts' is in a loop")


def measure_run(config, workers, seconds):
    """(gradients per second, mean staleness, workers' seconds by phase) of a run, once all work."""
    import jax

    from rljax import a3c

    statuses = []
    chunks = a3c.chunks(config, workers, jax.random.key(0), watch=statuses.append)

    def read(due):
        """At the first chunk from then on in which all work."""
        for state, _ in chunks:
            now, each = perf_counter(), statuses.pop().workers
            if now >= due and all(worker.state == "working" for worker in each):
                return now, state.counts.staleness, sum(worker.seconds for worker in each)

    with contextlib.closing(chunks):
        working, *_ = read(0)
        begun, *before = read(working + 1)  # a second later, for what the first messages took
        ended, *after = read(begun + seconds)
    histogram, spent = (b - a for a, b in zip(before, after))
    gradients = histogram.sum()
    staleness = histogram @ np.arange(len(histogram)) / gradients
    return float(gradients) / (ended - begun), float(staleness), spent


def measure_alone(seconds):
    """The holder and the transport, with no worker running."""
    import jax

    from rljax import a3c
    from rljax.a3c import messages

    config, workers = config_for("CartPole-v1", 1, 5), WorkerConfig(1)
    layout, state = messages.layout(config), a3c.init(config, workers, jax.random.key(0))
    holder = a3c.ParameterHolder(config, workers, layout, state.learner, state.counts, state.row)
    record, vector = np.zeros((), layout.record), holder.published().copy()
    content, parameters = record.tobytes(), transport.SharedParameters(spawning, vector.size)

    def apply():
        holder.push(content, 0)
        parameters.publish(holder.version, holder.published())
        return 1

    speed = 1 / seconds_each(apply, seconds)
    print(f"holder alone: {speed:,.0f} gradients/s of {vector.size:,} parameters")
    push = {
        "rljax": through_pipe(content, seconds),
        "SimpleQueue": through_queue(spawning.SimpleQueue(), record, seconds),
        "Queue": through_queue(spawning.Queue(2), record, seconds),
    }
    pull = {
        # A copy within this process, as any other's would be.
        "rljax": seconds_each(lambda: parameters.read(vector) > 0, seconds),
        "SimpleQueue": through_queue(spawning.SimpleQueue(), vector, seconds),
    }
    for name, ways in {"push": push, "pull": pull}.items():
        each = ", ".join(f"{way} {taken * 1e6:.1f}" for way, taken in ways.items())
        print(f"{name}, microseconds: {each}")
    return {"holder_gradients_per_second": speed, "push_seconds": push, "pull_seconds": pull}


def through_pipe(content, seconds):
    (take_end, put_end), (stop, _never) = (spawning.Pipe(duplex=False) for _ in range(2))
    reader = transport.Reader(take_end, len(content), len(content))

    def take():
        select.select([reader], [], [])
        return len(reader.get())

    return timed(take, reader.waiting, seconds, (put_end, stop), content)


def through_queue(queue, data, seconds):
    return timed(lambda: queue.get() is not None, lambda: not queue.empty(), seconds, queue, data)


def timed(take, is_there, seconds, *sent):
    """Seconds that a message takes, of those that another process sends until it is killed."""
    process = spawning.Process(target=send, args=sent, daemon=True)
    process.start()
    try:
        while not is_there():
            if not process.is_alive():
                raise RuntimeError(f"the sender exited with status {process.exitcode}")
            sleep(0.01)
        return seconds_each(take, seconds)
    finally:
        process.kill()
        process.join()


def send(queue, message):
    """By a queue, or by rljax's on (pipe, stop)."""
    rljax = isinstance(queue, tuple)
    put = partial(transport.Queue(*queue).put, 0) if rljax else queue.put
    while True:
        put(message)


def seconds_each(take, seconds):
    """Median of five runs, so long together; `take` returns how many it took."""

    def run():
        taken, begun = 0, perf_counter()
        while (passed := perf_counter() - begun) < seconds / 5 or not taken:
            taken += take()
        return passed / taken

    take()  # compiles, or finds what is there already
    return statistics.median(run() for _ in range(5))


def measure_start():
    figures, script = {}, Path(__file__).with_name("a3c.py")
    asked = "--num-workers 4 --total-timesteps 2000 --eval-episodes 0 --quiet".split()
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        for name in ("cold", "warm"):
            run_dir, begun = Path(folder, name), perf_counter()
            command = [sys.executable, script, *asked, "--run-dir", run_dir]
            with subprocess.Popen(command, env=environ) as process:
                while process.poll() is None and not has_row(run_dir):
                    sleep(0.01)
                figures[name] = perf_counter() - begun
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, command)
            print(f"a3c.py, {name} cache: first row of metrics after {figures[name]:.1f} s")
    return figures


def has_row(run_dir):
    return any(path.read_bytes().count(b"\n") > 1 for path in run_dir.glob("metrics.csv"))
