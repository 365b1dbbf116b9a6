"""How fast A3C is, and where its workers' time goes.

python experiments/benchmarks/a3c.py --envs gymnasium/CartPole-v1 --workers 1 2

For every environment, size (environments of a worker x steps of a rollout, t_max) and number of
workers, once all work: steps and gradients per second of all together, mean staleness, and the
shares of their time by phase. An environment in JAX is one program with policy and gradient; its
time is split as it is in loops of its parts.

holder      gradients per second that a parameter holder applies and publishes, no worker running
push, pull  microseconds for a message to reach another process, and for parameters to come back,
            by what `rljax.a3c` uses and by the queues of `multiprocessing`
"""

import contextlib
import dataclasses
import itertools
import multiprocessing
import select
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from time import perf_counter

import jax
import numpy as np

from rljax import a2c, a3c
from rljax.a3c import messages, transport
from rljax.cli import benchmark
from rljax.config import WorkerConfig
from rljax.presets import base
from rljax.utils import forkserver, platform

ENVS, SIZES = ("CartPole-v1", "gymnasium/CartPole-v1"), ("1x5", "8x20")
SEED = 0
SPEEDS = {"steps/s": ",.0f", "gradients/s": ",.0f", "staleness": ".2f"}
COLUMNS = {"env": "", "size": "", "workers": "", **SPEEDS, **dict.fromkeys(messages.PHASES, ".1%")}
spawning = multiprocessing.get_context("spawn")


@dataclasses.dataclass(frozen=True)
class Workers:
    workers: tuple[int, ...] = (1, 2, 4, 8)  # Numbers of workers.


def measure(how, asked):
    with platform.computing_on("cpu", in_place=True) as device:
        forkserver.start_server()
        worker_configs = [WorkerConfig(number).validate() for number in asked.workers]
        rows = benchmark.table(COLUMNS, how.rows(base("a3c"), partial(speeds, how, worker_configs)))
        return device, {"seed": SEED, "runs": rows, "alone": alone(how.seconds)}


def speeds(how, worker_configs, config):
    parts = {}
    if a2c.in_one_program(config):  # in a process of one thread, as a worker is
        with ProcessPoolExecutor(1, mp_context=forkserver.context) as pool:
            parts = pool.submit(shares_of_parts, config).result()
    for workers in worker_configs:
        workers = dataclasses.replace(workers, envs_per_worker=config.num_envs)
        runs = [one_run(config, workers, how.seconds) for _ in range(how.repeats)]
        speed, staleness, *spent = sorted(runs, key=lambda run: run[0])[len(runs) // 2].tolist()
        shares = {phase: seconds / sum(spent) for phase, seconds in zip(messages.PHASES, spent)}
        shares |= {name: part * shares["gradient"] for name, part in parts.items()}
        found = {"steps/s": speed * config.batch_size, "gradients/s": speed, "staleness": staleness}
        yield {"workers": workers.num_workers, **found, **shares}


def shares_of_parts(config):
    """The shares that environment, policy and gradient have in training."""
    state = jax.jit(a2c.init)(config, jax.random.key(SEED))
    steps = {
        "environment": benchmark.stepping(config, state),
        "acting": benchmark.acting(config, state),
        "training": benchmark.repeated(a2c.update, config, state),
    }
    found = benchmark.speeds(steps, repeats=5, seconds=0.2)
    environment, acting = (found["training"] / found[name] for name in ("environment", "acting"))
    return {"environment": environment, "policy": acting - environment, "gradient": 1 - acting}


def one_run(config, workers, seconds):
    """[gradients per second, mean staleness, *seconds of workers by phase] once all work."""
    statuses = []
    chunks = a3c.chunks(config, workers, jax.random.key(SEED)[None], watch=statuses.append)

    def read(due):
        """At the first chunk from then on in which all work."""
        for now, status in ((perf_counter(), statuses.pop()) for _ in chunks):
            if now >= due and all(worker.state == "working" for worker in status.workers):
                counts, spent = status.counts, sum(worker.seconds for worker in status.workers)
                return np.array([now, counts.applied, counts.staleness_sum, *spent])

    with contextlib.closing(chunks):
        before = read(read(0)[0] + 1)  # a second later, for what the first messages took
        passed, gradients, staleness, *spent = read(before[0] + seconds) - before
    return np.array([gradients / passed, staleness / gradients, *spent])


def alone(seconds):
    """The holder and the transport, with no worker running."""
    config, workers = benchmark.config_for(base("a3c"), "CartPole-v1", "1x5"), WorkerConfig(1)
    layout, state = messages.layout(config), a3c.init(config, workers, jax.random.key(SEED))
    holder = a3c.ParameterHolder(config, workers, layout, state)
    record, vector = np.zeros((), layout.record), holder.published().copy()
    content, parameters = record.tobytes(), transport.SharedParameters(spawning, vector.size)

    def apply():
        holder.push(content, 0)
        parameters.publish(holder.version, holder.published())
        return 1

    speed = per_second(apply, seconds)
    print(f"holder alone: {speed:,.0f} gradients/s of {vector.size:,} parameters", flush=True)
    push = {
        "rljax": through_pipe(content, seconds),
        "SimpleQueue": through(spawning.SimpleQueue(), record, seconds),
        "Queue": through(spawning.Queue(2), record, seconds),
    }
    pull = {  # by rljax a copy within this process, as any other's is
        "rljax": per_second(lambda: parameters.read(vector) > 0, seconds),
        "SimpleQueue": through(spawning.SimpleQueue(), vector, seconds),
    }
    found = {"push": push, "pull": pull}
    for name, ways in found.items():
        each = ", ".join(f"{way} {1e6 / speed:.1f}" for way, speed in ways.items())
        print(f"{name}, microseconds: {each}", flush=True)
    return {"holder_gradients_per_second": speed, "messages_per_second": found}


def through_pipe(content, seconds):
    (take_end, put_end), (stop, _never) = (spawning.Pipe(duplex=False) for _ in range(2))
    reader = transport.Reader(take_end, len(content), len(content))

    def take():
        select.select([reader], [], [])
        return len(reader.get())

    return through((put_end, stop), content, seconds, take, lambda: not reader.waiting())


def through(queue, message, seconds, take=None, is_empty=None):
    """Messages per second, of those that another process sends until it is killed."""
    take, is_empty = take or (lambda: queue.get() is not None), is_empty or queue.empty
    process = spawning.Process(target=send, args=(queue, message), daemon=True)
    process.start()
    try:
        while is_empty():
            process.join(0.01)
            if process.exitcode is not None:
                raise ValueError(f"the sender exited with status {process.exitcode}")
        return per_second(take, seconds)
    finally:
        process.kill()
        process.join()


def send(queue, message):
    """By a queue, or by rljax's on (pipe, stop)."""
    put = partial(transport.Queue(*queue).put, 0) if isinstance(queue, tuple) else queue.put
    while True:
        put(message)


def per_second(take, seconds):
    """Median of five runs; `take` returns how many it took."""
    counts = itertools.accumulate(iter(take, None))
    next(counts)  # compiles
    return benchmark.speeds({"taken": counts}, repeats=5, seconds=seconds / 5)["taken"]


if __name__ == "__main__":
    how = benchmark.Speeds(ENVS, SIZES, repeats=1, seconds=5.0)
    sys.exit(benchmark.main(__doc__, measure, how, Workers()))
