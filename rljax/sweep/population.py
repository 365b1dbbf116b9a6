"""A group of trials as one program: vmapped over the trials of a batch, which are spread over the
devices, of several processes those of all. The devices exchange nothing. A group is trained to its
end or, in a search, stretch by stretch, with some trials ended between them.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from rljax import algorithms
from rljax.sweep import programs, results
from rljax.sweep.options import SweepOptions
from rljax.sweep.results import Failure, Held, Progress, Result, Stretch, evaluated
from rljax.sweep.trials import Trial
from rljax.utils import hosts, seeds, sharding
from rljax.utils.forkserver import EnvError

SMALL = 4  # small batches of a search are this part of the large ones
FILLED = 0.6  # from this share on a large batch is filled up with copies


def train(
    trials: Sequence[Trial],
    how: SweepOptions,
    done: Collection[int] = (),
    take: Callable[[list[Trial]], list[Trial]] = list,
    most: int | None = None,
) -> Iterator[Progress]:
    """Trains the trials of a group, batch after batch, and evaluates them. `take` is called with
    those of a batch right before it, and gives the ones to train.

    All batches have one size, rounded up to whole devices, and are filled up with copies: one
    compiled program serves all. Where it fails, all trials of the batch do. The size is at the
    `most` this, where these are not all trials of the group.
    """
    program = programs.fitting(trials[0], how, most or len(trials))
    pace = 1
    for start in range(0, len(trials), program.size):
        batch = [x for x in trials[start : start + program.size] if x.number not in done]
        batch = batch and take(batch)
        if not batch:
            continue
        with_failures = _failures_told(batch, _train_batch(program, batch, pace, how))
        pace = (yield from with_failures) or pace


def _failures_told(batch, steps):
    try:
        return (yield from steps)
    except EnvError as error:
        for trial in batch:
            yield Progress(failure=Failure(trial, str(error)))


def _train_batch(program, trials, pace, how):
    """Returns the next batch's `pace`: the updates that fit the seconds of a chunk."""
    config, number = trials[0].config, len(trials)
    settings, keys = arguments = _arguments(trials, program.size)
    if program.mesh.is_multi_process:
        settings, keys = sharding.placed(arguments, program.mesh)
    agents = program.init(settings, keys)
    advance = _advance(program, config, settings, agents, (0, config.num_updates), pace, number)
    (states, rows), pace = yield from advance
    returns = _evaluated(program, config, states.learner, arguments[1], how)
    returns = None if returns is None else returns[:number]
    metrics = results.of_trials(sharding.fetched(rows, program.mesh), slice(number))
    yield Progress(result=Result(trials, metrics, returns))
    return pace


def _evaluated(program, config, learners, keys, how):
    """As `results.evaluated`; each of several processes evaluates what its devices trained."""
    if program.mesh.is_multi_process:
        each = program.size // hosts.count()
        learners, keys = sharding.of_this_process(learners), keys[each * hosts.index() :][:each]
    with sharding.failures_shared():
        returns = evaluated(config, learners, keys, how)
    return None if returns is None else hosts.gathered(returns).reshape(-1)


def train_stretch(
    trials: Sequence[Trial], how: SweepOptions, done: Collection[int], stretch: Stretch
) -> Iterator[Progress]:
    """Trains the trials of a group that are not in `done` to the end of a stretch, and yields them
    as `Held`.

    They are gathered into batches of two sizes, a large one and a quarter of it, so that all
    stretches share three compiled programs. A trial of a large batch has the same bits in whatever
    company; of a small one it differs by rounding.
    """
    started = time.perf_counter()
    live = [trial for trial in trials if trial.number not in done]
    config = live[0].config
    # Groups of a search have any number of trials: a power of two, and few programs.
    most = 1 << (len(trials) - 1).bit_length()
    large = small = programs.fitting(live[0], how, most, is_packed=True)
    if not stretch.one_size:
        small = large.resized(max(1, large.each // SMALL))
    for program in {program for program, _ in _batches(live, large, small)}:
        program.advance  # noqa: B018  compiles it
    if stretch.held is None:
        large.init  # noqa: B018
    compiled = time.perf_counter()
    yield Progress(compile_seconds=compiled - started)
    held = _fresh(large, live) if stretch.held is None else stretch.held
    yield Progress(seconds=time.perf_counter() - compiled)
    begun, pace = len(held.metrics.updates), {large: 1, small: 1}
    span = tuple(results.updates_at(config, rows) for rows in (begun, stretch.rows))
    places = held.places
    for program, batch in _batches(live, large, small):
        at = np.array([places[trial.number] for trial in batch])
        at = np.concatenate([at, at[-1:].repeat(program.size - len(at))])
        steps = _stretch_of_batch(program, held.at(at), batch, stretch.rows, span, pace[program])
        pace[program] = (yield from _failures_told(batch, steps)) or pace[program]


def states_of(held: Held) -> Any:
    """The states [A] at the end of a stretch."""
    first = held.trials[0]
    unpacked = programs.unpacking(algorithms.module(first.algorithm), first.in_parts)
    return jax.jit(jax.vmap(unpacked))(held.states)


def _fresh(program, trials):
    """`Held` without rows."""
    parts = []
    for start in range(0, len(trials), program.size):
        batch = trials[start : start + program.size]
        agents = program.init(*_arguments(batch, program.size))
        parts.append(_to_host(agents, batch, 0))
    return results.joined(parts)


def _stretch_of_batch(program, held, trials, num_rows, span, pace):
    """Trains these trials, held with copies of the last that fill the batch. Returns the pace, as
    `_train_batch` does."""
    settings = seeds.stack([trial.in_parts for trial in held.trials])
    rows = jax.tree.map(_lengthened, held.metrics, program.agents[1])
    config, number = trials[0].config, len(trials)
    advance = _advance(program, config, settings, (held.states, rows), span, pace, number)
    agents, pace = yield from advance
    yield Progress(held=_to_host(agents, trials, num_rows))
    return pace


def _lengthened(rows, like):
    """Rows so far with empty ones up to all of a run."""
    empty = np.zeros((len(like) - len(rows), *rows.shape[1:]), rows.dtype)
    return np.concatenate([rows, empty])


def _to_host(agents, trials, num_rows):
    """`Held` of a batch, without the copies that fill it up."""
    number, (states, rows) = len(trials), jax.device_get(agents)
    states = jax.tree.map(lambda x: x[:number], states)
    rows = jax.tree.map(lambda x: x[:num_rows, :number], rows)
    return Held(list(trials), states, (), rows)  # packed: no keys


def _batches(trials, large, small):
    """(program, trials) that hold all of them, with few copies to fill them up."""
    start = 0
    while start < len(trials):
        program = large if len(trials) - start >= FILLED * large.size else small
        yield program, trials[start : start + program.size]
        start += program.size


def _arguments(trials, size):
    """(settings [A], keys [A]), filled up with copies of the last trial."""
    filled = [*trials, *[trials[-1]] * (size - len(trials))]
    return seeds.stack([x.in_parts for x in filled]), seeds.keys(x.seed for x in filled)


def _advance(program, config, settings, agents, span, pace, number):
    """Trains a batch from one number of updates to another, in chunks, of which `number` trials are
    no copies. Returns (agents, the next pace)."""
    done, end = span
    while done < end:
        length = min(pace, end - done)
        begun = time.perf_counter()
        part = np.array([done, done + length], np.int32)
        where = f"in the updates after {done:,}"
        with sharding.failures_shared(), sharding.failures_named(where):
            agents = jax.block_until_ready(program.advance(settings, *agents, part))
        seconds = float(hosts.gathered(np.float32(time.perf_counter() - begun)).max())
        pace = max(1, min(int(seeds.CHUNK_SECONDS * length / seconds), 20 * length))
        done += length
        yield Progress(length * config.batch_size * number, seconds)
    return agents, pace
