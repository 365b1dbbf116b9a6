"""The clock of simulated A3C: which worker's gradient comes next, and how old its parameters are.

A worker pulls the newest parameters, works, pushes the gradient and, after a pause, pulls again.
The gradient takes its transit, in the order of the worker's pushes, then waits until the holder has
done with those that came before; after the service it is applied, and what it makes is published. A
worker whose `in_flight` gradients the holder has not begun with waits with its next push.

Staleness is not put in, it comes out: the number of versions published between a gradient's pull
and its application. What is published at the moment of a pull is seen by it, so that with neither
transit nor service a worker alone has a staleness of 0. Workers start one after another within a
unit of work: with a constant one W workers have a staleness of W - 1, and with none they are in
lockstep, as `WorkerConfig.lockstep` has it.

All times are relative to the end of the last service, so that they are exact however long a run is.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.a3c import delays
from rljax.a3c.simulation import SimulationConfig
from rljax.utils import pytrees
from rljax.utils.traced import Parsed, parsed

NOT_YET = -1  # instead of a place: of what has not been pulled


class Clock(NamedTuple):
    """W workers, of each the F + 1 gradients that come next, F = `in_flight`: where the holder has
    not begun with the first of them, the worker cannot have pulled for a later one."""

    pulls: Any
    """[W, F + 1] when the parameters for them are pulled."""
    pushes: Any
    """[W, F] when the first F are pushed."""
    places: Any
    """[W, F + 1] int32 where these are among the versions kept, or NOT_YET."""
    versions: Any
    """[W, F + 1] int32 which version that is, where it has been pulled."""
    arrivals: Any
    """[W] when the first one is with the holder."""
    turns: Any
    """[W] int32 the last gradient served: of those that come at once the one waiting longest."""
    uses: Any
    """[versions kept] int32 how many of the gradients to come need each."""
    newest: Any
    """int32 the place of the newest version."""
    first: Any
    """int32 the gradient of a measured run that the first one of all is like; random."""


class Next(NamedTuple):
    """The gradient to be applied next."""

    worker: Any
    place: Any  # of its parameters among the versions kept
    version: Any  # of these parameters


def is_given(options: SimulationConfig) -> bool:
    """Whether the staleness is given, instead of durations."""
    return parsed(options, "staleness").kind is not None


def start(options: SimulationConfig, key: jax.Array) -> Clock:
    """All workers have pulled version 0, or are about to."""
    number, ahead = options.num_workers, options.in_flight
    keys = dict(zip(("work", "pause", "transit", "first"), jax.random.split(key, 4)))
    workers = jnp.arange(number, dtype=jnp.int32)
    begin = jax.random.randint(keys["first"], (), 0, 2**16, jnp.int32)
    later = workers[:, None], begin, jnp.arange(ahead, dtype=jnp.int32)[None]
    works, pauses = (draw(parsed(options, name), keys[name], *later) for name in ("work", "pause"))
    first = workers / number * delays.mean(parsed(options, "work"))
    pulls = first[:, None] + jnp.pad(jnp.cumsum(works + pauses, axis=1), ((0, 0), (1, 0)))
    pushes = pulls[:, :-1] + works
    transit = draw(parsed(options, "transit"), keys["transit"], workers, begin, jnp.int32(0))
    nothing = jnp.full((number, ahead + 1), NOT_YET, jnp.int32)
    uses = jnp.zeros(options.versions, jnp.int32)
    turns = workers - number
    arrivals = pushes[:, 0] + transit
    newest = jnp.int32(0)
    return Clock(pulls, pushes, nothing, nothing, arrivals, turns, uses, newest, begin)


def find(clock: Clock, version: jax.Array) -> Next:
    """The gradient that arrives first; `version` is the newest."""
    is_first = clock.arrivals == jnp.min(clock.arrivals)
    worker = jnp.argmin(jnp.where(is_first, clock.turns, jnp.iinfo(jnp.int32).max))
    place, of_place = clock.places[worker, 0], clock.versions[worker, 0]
    place, of_place = pytrees.where(place == NOT_YET, (clock.newest, version), (place, of_place))
    return Next(worker.astype(jnp.int32), place, of_place)


def serve(
    options: SimulationConfig,
    clock: Clock,
    now: Next,
    key: jax.Array,
    version: jax.Array,
    turn: jax.Array,
    is_applied: jax.Array,
) -> tuple[Clock, jax.Array]:
    """The clock after the service of `find`'s gradient, and the time that has passed.

    Args:
        version: the newest until then.
        turn: the number of gradients served until then.
        is_applied: whether it makes a new version; if it is rejected, it does not. What is newest
            now is to be kept in the clock's place for it.
    """
    worker = now.worker
    ahead = dict(work=options.in_flight, pause=options.in_flight, transit=1, service=0)
    work, pause, transit, service = (
        draw(parsed(options, name), key, worker, clock.first + turn, jnp.int32(later))
        for (name, later), key in zip(ahead.items(), jax.random.split(key, 4))
    )
    begun = jnp.maximum(clock.arrivals[worker], 0.0)
    end = begun + service
    # The gradient `in_flight` behind this one can be pushed from now on, and its successor pulled.
    push = jnp.maximum(clock.pulls[worker, -1] + work, begun)
    pushes = jnp.append(clock.pushes[worker, 1:], push)
    arrival = jnp.maximum(clock.arrivals[worker], pushes[0] + transit)
    pulls = clock.pulls.at[worker].set(jnp.append(clock.pulls[worker, 1:], push + pause))
    places, versions = (
        all.at[worker].set(jnp.append(all[worker, 1:], NOT_YET))
        for all in (clock.places, clock.versions)
    )
    # Those pulled before the new version is published have the one until then.
    pulled = jnp.logical_and(places == NOT_YET, pulls < end)
    pulled = jnp.logical_and(pulled, is_applied)
    was_pulled = clock.places[worker, 0] != NOT_YET
    uses = clock.uses.at[now.place].add(-was_pulled.astype(jnp.int32))
    uses = uses.at[clock.newest].add(jnp.sum(pulled, dtype=jnp.int32))
    after = Clock(
        pulls=pulls - end,
        pushes=clock.pushes.at[worker].set(pushes) - end,
        places=jnp.where(pulled, clock.newest, places),
        versions=jnp.where(pulled, version, versions),
        arrivals=clock.arrivals.at[worker].set(arrival) - end,
        turns=clock.turns.at[worker].set(turn),
        uses=uses,
        # Nobody needs it: there is one place more than gradients to come.
        newest=jnp.argmin(uses).astype(jnp.int32),
        first=clock.first,
    )
    return after, end


def given(options: SimulationConfig, key: jax.Array, turn: jax.Array, version: jax.Array) -> Next:
    """Where the staleness is given: that of the next gradient, of the worker whose turn it is. It
    is no larger than the number of versions that there have been."""
    (kind, capacity), numbers = parsed(options, "staleness")
    if kind == "constant":
        old = numbers[0]
    elif kind == "uniform":
        low, high = numbers
        old = low + jnp.floor(jax.random.uniform(key) * (high - low + 1))
    else:  # the floor of an exponential is geometric
        (mean,) = numbers
        old = jnp.floor(jax.random.exponential(key) / jnp.log1p(1 / jnp.float32(mean)))
    old = jnp.minimum(old, capacity).astype(jnp.int32)
    wanted = version - jnp.minimum(old, version)
    return Next(turn % options.num_workers, place_of(options, wanted), wanted)


def place_of(options: SimulationConfig, version: jax.Array) -> jax.Array:
    """The place of a version where the staleness is given."""
    return version % options.versions


def draw(
    distribution: Parsed, key: jax.Array, worker: jax.Array, turn: jax.Array, ahead: jax.Array
) -> jax.Array:
    """Durations of these workers' gradients, that are `ahead` of each worker's next by so many when
    `turn` gradients of all were served. Of a measured run they are those of these gradients."""
    kind, numbers = distribution
    shape = jnp.broadcast_shapes(worker.shape, ahead.shape)
    if delays.is_measured(distribution):
        found, before = map(jnp.asarray, numbers)
        of_run = worker % found.shape[0]
        # Programs take numbers as floats: exact up to 2**24.
        number = before[of_run, turn % before.shape[1]].astype(jnp.int32) + ahead
        return found[of_run, number % found.shape[1]]
    mean, *more = numbers
    if kind == "constant":
        return jnp.broadcast_to(mean, shape)
    if kind == "exponential":
        return mean * jax.random.exponential(key, shape)
    if kind == "lognormal":
        (sigma,) = more
        return mean * jnp.exp(sigma * jax.random.normal(key, shape) - 0.5 * sigma**2)
    if kind == "pareto":
        (alpha,) = more
        return mean * (1 - 1 / alpha) * jnp.exp(jax.random.exponential(key, shape) / alpha)
    (factor,) = more
    return jnp.broadcast_to(jnp.where(worker == 0, mean * factor, mean), shape)
