"""Trains A3C with worker processes, one seed after another, and writes a run directory.

python experiments/a3c.py --env CartPole-v1 --num-workers 4
python experiments/a3c.py --env gymnasium/CartPole-v1 --num-workers 2
python experiments/a3c.py --resume RUN_DIR
"""

import contextlib
import dataclasses
import os
import sys
from functools import partial

import common
import flags
import in_turn
import numpy as np
from flags import RunOptions
from start import Start, fresh, resumed

from rljax import a3c
from rljax.config import Config, WorkerConfig
from rljax.utils import forkserver

ALGORITHM = "a3c"


def main(argv: list[str]) -> int:
    """Runs; returns the exit status."""
    default = RunOptions(num_seeds=1)
    return common.main(
        ALGORITHM, __doc__, argv, prepare, train, default, (WorkerConfig(),), settle=settle
    )


def settle(config: Config, options: RunOptions, workers: WorkerConfig):
    """What the flags come to; starts the server that workers are forked from."""
    if options.device == "gpu":
        raise ValueError("device = 'gpu': A3C computes on the CPU")
    workers.validate()
    if config.num_envs not in (1, workers.envs_per_worker):
        raise ValueError(f"num_envs = {config.num_envs}: A3C has --envs-per-worker instead")
    config = dataclasses.replace(config, num_envs=workers.envs_per_worker)
    options = dataclasses.replace(options, device="cpu")
    flags.set_xla_flags(options.device)  # workers take them over
    forkserver.start_server()  # it imports while this process does
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
    config, (workers,) = asked.config, asked.more
    cores = len(os.sched_getaffinity(0))
    if workers.num_workers > cores:
        print(f"warning: {workers.num_workers} workers share {cores} cores", file=sys.stderr)
    return in_turn.train(
        ALGORITHM,
        asked,
        start,
        _fresh_states(asked) if start.states is None else start.states,
        f"A3C · {config.env} · {workers.num_workers} workers",
        partial(_chunks, workers),
        partial(_begin_row, config),
        failures=(a3c.WorkerError, forkserver.EnvError),
        facts=facts,
    )


def _chunks(workers, run, states, index):
    """`a3c.chunks` of one seed; None while workers are starting."""
    state = _first(states)
    started = int(state.learner.updates)
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
                yield None
            else:
                yield _stack([now]), _stack([metrics])


def _begin_row(config, states):
    state, row = a3c.begin_row(config, _first(states))
    return _stack([state]), _stack([row])


def _fresh_states(asked):
    return _stack([a3c.init(asked.config, *asked.more, key) for key in asked.keys])


def _stack(trees):
    import jax

    return jax.tree.map(lambda *x: np.stack(x), *trees)


def _first(states):
    import jax

    return jax.tree.map(lambda x: x[0], states)


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
