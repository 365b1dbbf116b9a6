"""Seeds that are trained one after another: each keeps the machine busy by itself."""

import contextlib
import dataclasses
import shutil
import sys
import time
from collections.abc import Callable

import common
import flags
import numpy as np
from display import Display
from start import Start

from rljax.runs import checkpoints
from rljax.utils import forkserver


def train(
    algorithm: str,
    asked: common.Asked,
    start: Start,
    states,
    title: str,
    chunks: Callable,
    begin_row: Callable,
    **own,
) -> int:
    """Trains each seed to its end, evaluates and writes; returns the exit status.

    Args:
        states: of all seeds, in NumPy where they are no keys.
        title: of the display.
        chunks: (`Run`, state [1], index of the seed) -> chunks of states and metrics [1], or None
            where there is nothing to tell yet.
        begin_row: state [1] -> (state, metrics of the row so far) [1].
        own: the algorithm's own, for `common.Run`.
    """
    try:
        return _train(algorithm, asked, start, states, title, chunks, begin_row, own)
    except forkserver.RefusedError as error:
        if not asked.options.resume and checkpoints.existing(start.run_dir) in ([], [0]):
            shutil.rmtree(start.run_dir)  # nothing has been trained
        return flags.fail(error)


def _train(algorithm, asked, start, states, title, chunks, begin_row, own):
    config, seeds = asked.config, asked.seeds
    updates = np.asarray(states.learner.updates)
    done = int(updates.sum()) * config.batch_size
    total = config.num_updates * config.batch_size * len(seeds)
    if len(seeds) > 1:
        title += f" · {len(seeds)} seeds, one after another"
    if done:
        title += f" · from {done:,} steps"
    with Display(title, done, total, asked.options.quiet) as display:
        run = common.begin(algorithm, asked, start, display, **own)
        for index in _left(run, start, updates):
            try:
                outcome = _train_one(run, start, states, index, chunks, begin_row)
            except forkserver.RefusedError as error:
                if not np.any(states.learner.updates):
                    raise
                print(f"error: {error}", file=sys.stderr)  # the seeds before are saved
                return 1
            if outcome.status != "completed":
                break
            states = outcome.states
            start = dataclasses.replace(start, best=outcome.best, updates=-1)  # of no seed
        return common.finish(run, outcome)


def _left(run, start, updates):
    """Indices of the seeds that are not done, and of one whose last evaluation a signal put off."""
    left = np.flatnonzero(updates < run.config.num_updates).tolist()
    end = run.config.num_updates
    before = (left[0] if left else len(updates)) - 1
    is_put_off = (
        run.options.eval_every
        and start.updates == end
        and start.progress.evaluated != end * run.config.batch_size
    )
    return [before, *left] if not left or (is_put_off and before >= 0) else left


def _train_one(run, start, states, index, chunks, begin_row):
    """Trains the seed of that index to its end; the `Outcome`."""
    making, config = time.perf_counter(), run.config
    updates = int(states.learner.updates[index])
    others = int(states.learner.updates.sum()) - updates
    run = dataclasses.replace(
        run, active=range(index, index + 1), env_steps_before=others * config.batch_size
    )
    if start.raised:
        state, row = begin_row(_one(states, index))
        states = _with_one(states, index, state)
        if start.in_row and updates == start.updates:
            common.append_rows(run, row, speed=0.0)
    if updates != start.updates:  # the last evaluation was another seed's
        run.progress.evaluated = updates * config.batch_size
    start = dataclasses.replace(start, updates=updates)
    with contextlib.closing(_of_all(run, chunks, states, index)) as all_chunks:
        return common.follow(run, start, states, all_chunks, making)


def _of_all(run, chunks, states, index):
    """A seed's chunks, as states of all of them and metrics [1]."""
    with contextlib.closing(chunks(run, _one(states, index), index)) as own:
        for chunk in own:
            if chunk is None:
                run.signals.check()
            else:
                yield _with_one(states, index, chunk[0]), chunk[1]


def _one(states, index):
    import jax

    return jax.tree.map(lambda x: x[index : index + 1], states)


def _with_one(states, index, state):
    import jax

    def put(everyone, one):
        if jax.dtypes.issubdtype(everyone.dtype, jax.dtypes.prng_key):
            return everyone.at[index].set(one[0])
        changed = np.array(everyone)
        changed[index] = one[0]
        return changed

    return jax.tree.map(put, states, state)
