"""Trains A3C with worker processes, one seed after another, and writes a run directory.

python experiments/a3c.py --env CartPole-v1 --num-workers 4
python experiments/a3c.py --env gymnasium/CartPole-v1 --num-workers 2
python experiments/a3c.py --resume RUN_DIR
"""

import contextlib
import dataclasses
import os
import shutil
import sys
import time

import common
import flags
import numpy as np
from display import Display
from flags import RunOptions
from start import Start, fresh, resumed

from rljax import a3c
from rljax.config import Config, Workers

ALGORITHM = "a3c"


def main(argv: list[str]) -> int:
    """Runs; returns the exit status."""
    default = RunOptions(num_seeds=1)
    return common.main(
        ALGORITHM, __doc__, argv, prepare, train, default, (Workers(),), settle=settle
    )


def settle(config: Config, options: RunOptions, workers: Workers):
    """What the flags come to; starts the server that workers are forked from."""
    if options.device == "gpu":
        raise ValueError("device = 'gpu': A3C computes on the CPU")
    workers.validate()
    if config.num_envs not in (1, workers.envs_per_worker):
        raise ValueError(f"num_envs = {config.num_envs}: A3C has --envs-per-worker instead")
    config = dataclasses.replace(config, num_envs=workers.envs_per_worker)
    options = dataclasses.replace(options, device="cpu")
    flags.set_xla_flags(options.device)  # workers take them over
    a3c.start_server()  # it imports while this process does
    import jax

    # One thread applies gradients: handing each to another costs more than it gains.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return config, options, workers


def prepare(asked: common.Asked):
    """Checks all that can be checked before training; a context that gives the `Start`."""
    states = _fresh_states(asked)
    asked.signals.check()
    if asked.options.resume:
        return resumed(asked.config, asked.options, asked.device, asked.seeds, like=states)
    return _fresh(asked, states)


@contextlib.contextmanager
def _fresh(asked, states):
    with fresh(ALGORITHM, asked.config, asked.options, asked.device, *asked.more) as start:
        yield dataclasses.replace(start, states=states)


def train(asked: common.Asked, start: Start) -> int:
    """Trains, evaluates and writes; returns the exit status."""
    try:
        return _train(asked, start)
    except a3c.RefusedError as error:
        if not asked.options.resume:
            shutil.rmtree(start.run_dir)  # nothing has been trained
        return flags.fail(error)


def _train(asked, start):
    config, seeds, (workers,) = asked.config, asked.seeds, asked.more
    states = _fresh_states(asked) if start.states is None else start.states
    done = int(states.learner.updates.sum()) * config.batch_size
    total = config.num_updates * config.batch_size * len(seeds)
    title = f"A3C · {config.env} · {workers.num_workers} workers"
    if len(seeds) > 1:
        title += f" · {len(seeds)} seeds, one after another"
    if done:
        title += f" · from {done:,} steps"
    cores = len(os.sched_getaffinity(0))
    if workers.num_workers > cores:
        print(f"warning: {workers.num_workers} workers share {cores} cores", file=sys.stderr)
    with Display(title, done, total, asked.options.quiet) as display:
        run = common.begin(
            ALGORITHM, asked, start, display, failures=(a3c.WorkerError,), facts=facts
        )
        left = np.flatnonzero(states.learner.updates < config.num_updates)
        for index in left if len(left) else [len(seeds) - 1]:
            try:
                outcome = _train_one(run, workers, start, states, int(index))
            except a3c.RefusedError as error:
                if not states.learner.updates.any():
                    raise
                print(f"error: {error}", file=sys.stderr)  # the seeds before are saved
                return 1
            if outcome.status != "completed":
                break
            states = outcome.states
            start = dataclasses.replace(start, best=outcome.best, updates=-1)  # of no seed
        return common.finish(run, outcome)


def _train_one(run, workers, start, states, index):
    """Trains the seed of that index to its end; the `Outcome`."""
    making, config = time.perf_counter(), run.config
    updates = int(states.learner.updates[index])
    others = int(states.learner.updates.sum()) - updates
    run = dataclasses.replace(
        run, active=range(index, index + 1), env_steps_before=others * config.batch_size
    )
    if start.raised:
        state, row = a3c.begin_row(config, _one(states, index))
        states = _with_one(states, index, state)
        if start.in_row and updates == start.updates:
            common.append_rows(run, _stack([row]), speed=0.0)
    if updates != start.updates:  # the last evaluation was another seed's
        run.progress.evaluated = updates * config.batch_size
    start = dataclasses.replace(start, updates=updates)
    with contextlib.closing(_chunks(run, workers, states, index)) as chunks:
        return common.follow(run, start, states, chunks, making)


def _chunks(run, workers, states, index):
    """`a3c.chunks` of one seed, as states of all of them and metrics [1]."""
    state, started = _one(states, index), int(states.learner.updates[index])
    label = f"seed {run.seeds[index]}" if len(run.seeds) > 1 else ""
    chunks = a3c.chunks(
        run.config,
        workers,
        None,
        state,
        watch=lambda status: run.display.workers(label, status),
        warn=lambda text: print(f"warning: {text}", file=sys.stderr),
    )
    with contextlib.closing(chunks):
        for now, metrics in chunks:
            if int(metrics.updates) == started and now.counts.restarts == state.counts.restarts:
                run.signals.check()  # workers are starting
            else:
                yield _with_one(states, index, now), _stack([metrics])


def _fresh_states(asked):
    return _stack([a3c.init(asked.config, *asked.more, key) for key in asked.keys])


def _stack(trees):
    import jax

    return jax.tree.map(lambda *x: np.stack(x), *trees)


def _one(states, index):
    import jax

    return jax.tree.map(lambda x: x[index], states)


def _with_one(states, index, state):
    import jax

    def put(all_seeds, one):
        changed = np.array(all_seeds)
        changed[index] = one
        return changed

    return jax.tree.map(put, states, state)


def facts(states: a3c.State) -> dict:
    """What A3C adds to the summary: of all seeds together."""
    counts = states.counts
    histogram = counts.staleness.sum(axis=0)
    reached, applied = np.flatnonzero(histogram), histogram.sum()
    at_95 = int(np.searchsorted(histogram.cumsum(), 0.95 * applied))
    return {
        "gradients_applied": int(counts.applied.sum()),
        "gradients_rejected": int((counts.stale + counts.not_finite + counts.malformed).sum()),
        "rejected": {
            name: int(getattr(counts, name).sum()) for name in ("stale", "not_finite", "malformed")
        },
        "worker_restarts": int(counts.restarts.sum()),
        "staleness": {
            "mean": float(counts.staleness_sum.sum() / applied) if applied else None,
            "p95": at_95 if applied else None,
            "max": int(counts.staleness_max.max()) if applied else None,
            "histogram": histogram[: reached[-1] + 1].tolist() if applied else [],
        },
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
