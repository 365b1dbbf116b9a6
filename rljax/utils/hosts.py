"""Several processes, also on several hosts, that train as one: by JAX's distributed runtime.

All run the same program on the same settings and call the same functions here in the same order;
process 0 alone writes. In a process by itself all of this does nothing.

A process that ends takes the others with it: their collectives fail at once, where JAX's backend
says so, and its heartbeats fail to come. A thread of each asks the coordination service who lives.
"""

import contextlib
import json
import os
import pickle
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any

import numpy as np

from rljax.utils import coordination
from rljax.utils.errors import TrainingError, reworded

HEARTBEAT = 8  # seconds without one after which a process has ended
GRACE = 3.5  # seconds in which a process may save, and tell, before it leaves
CONNECT = 60  # seconds that processes wait for each other at the start
LONGEST = 3600  # seconds that process 0 may take at the end of a run, for evaluation and figures

_group = None  # the `_Group` of this process while it is connected


class EndedError(TrainingError):
    """Another process has ended; the message names it."""


class _Group:
    def __init__(self, client, process, number):
        self.client, self.process, self.number = client, process, number
        self.ended: str | None = None  # who has, in words
        self.is_known = threading.Event()
        self.is_leaving = False
        self.is_finished = False
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self):
        """Asks who lives: the service answers when all who do have asked."""
        while not (self.is_leaving or self.is_finished):
            try:
                alive = self.client.get_live_nodes(list(range(self.number)))
            except Exception:  # the service has ended, and process 0 long before
                alive = [i for i in range(self.number) if i != 0]
            gone = sorted(set(range(self.number)) - set(alive))
            if gone and not (self.is_leaving or self.is_finished):
                self._tell(gone)
                return
            time.sleep(0.5)

    def _tell(self, gone):
        names = " and ".join(map(str, gone))
        what = f"process{'es' * (len(gone) > 1)} {names} of {self.number}"
        self.ended = f"{what} has ended" if len(gone) == 1 else f"{what} have ended"
        self.is_known.set()
        time.sleep(GRACE)
        if not self.is_leaving:  # the main thread waits, or computes
            print(f"error: {self.ended}", file=sys.stderr, flush=True)
            os._exit(1)


def count() -> int:
    """The number of processes."""
    return _group.number if _group else 1


def index() -> int:
    """Which of them this is."""
    return _group.process if _group else 0


def is_first() -> bool:
    """Whether this process writes."""
    return index() == 0


def check(coordinator: str | None, number: int | None, process: int | None) -> None:
    """Raises ValueError if these are not of processes that can connect."""
    if coordinator in (None, "auto"):
        for name, value in (("num_processes", number), ("process_id", process)):
            if value is not None:
                needs = "needs coordinator = HOST:PORT"
                raise ValueError(f"{name} = {value}: {needs}")
        return
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"coordinator = {coordinator!r}: must be HOST:PORT, or auto")
    if number is None or process is None:
        lacking = "num_processes" if number is None else "process_id"
        raise ValueError(f"{lacking}: must be given with coordinator = {coordinator!r}")
    if not 0 <= process < number:
        raise ValueError(f"process_id = {process}: must be from 0 to {number - 1}")


@contextlib.contextmanager
def connected(
    coordinator: str | None, number: int | None = None, process: int | None = None
) -> Iterator[None]:
    """Makes this process one of several, before JAX starts its backends, for the rest of its life;
    alone without a coordinator.

    Args:
        coordinator: HOST:PORT of process 0; or "auto", as Slurm and Open MPI tell JAX.

    Raises:
        ValueError: the address is wrong, nobody answers there, or JAX has started.
    """
    global _group
    if coordinator is None:
        yield
        return
    import jax

    check(coordinator, number, process)
    _group = _connect(coordinator, number, process)
    try:
        yield
    except BaseException:  # it ends alone, or all of them do
        _group.is_leaving = True
        with contextlib.suppress(Exception):
            jax.distributed.shutdown()
        raise
    if _group.ended:
        print(f"error: {_group.ended}", file=sys.stderr)
        leave_ended(1)
    _group.is_leaving = True
    with contextlib.suppress(Exception):  # one that ends now has done its part
        if _group.is_finished:
            _group.client.wait_at_barrier("end", LONGEST * 1000)  # process 0 has more to write
        jax.distributed.shutdown()


def _connect(coordinator, number, process):
    import jax
    from jax._src import distributed

    what = f"coordinator = {coordinator!r}"
    given = dict(coordinator_address=coordinator, num_processes=number, process_id=process)
    given = {} if coordinator == "auto" else given | {"cluster_detection_method": "deactivate"}
    # Its handler of SIGTERM would replace ours.
    with contextlib.suppress(AttributeError):
        jax.config.update("jax_enable_preemption_service", False)
    try:
        if process:
            coordination.await_answer(coordinator, CONNECT)
        with coordination.beside(distributed, HEARTBEAT), _given_up(what):
            how = dict(heartbeat_timeout_seconds=HEARTBEAT, shutdown_timeout_seconds=1)
            jax.distributed.initialize(**given, **how, initialization_timeout=2 * CONNECT)
    except (RuntimeError, ValueError) as error:  # of which JaxRuntimeError is one
        lines = str(error).splitlines() or [type(error).__name__]
        raise ValueError(f"{what}: {lines[0]}") from error
    state = distributed.global_state
    return _Group(state.client, state.process_id, state.num_processes)


@contextlib.contextmanager
def _given_up(what):
    """Ends this process where the others do not come: JAX would abort it, with a stack trace."""

    def leave():
        print(f"error: {what}: the other processes did not come", file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(CONNECT + coordination.LINGER, leave)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def finished() -> None:
    """Tells that nothing is left to do with the other processes, for which the same holds: from
    here on they may end. One that leaves without this has failed, and the others are to know."""
    if _group:
        _group.is_finished = True


def leave_ended(status: int) -> int:
    """Where another process has ended: ends this one, which JAX's own end would wait for. Else
    gives the exit status."""
    if _group and _group.ended:
        _group.is_leaving = True
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def raise_if_ended(error: Exception) -> None:
    """After an error of a collective: waits until it is known whether another process has ended,
    and raises an EndedError that names it; returns if none has."""
    if _group and _group.is_known.wait(HEARTBEAT + 3):
        raise EndedError(_group.ended) from error


def gathered(numbers: np.ndarray) -> np.ndarray:
    """[P, ...] the numbers of all processes, arrays of one shape and type, bit by bit."""
    numbers = np.asarray(numbers)
    if not _group:
        return numbers[None]
    data = np.frombuffer(numbers.tobytes(), np.uint8)  # JAX would make 64 bits 32
    try:
        share, place = _sharing()
        told = np.asarray(share(place(data[None])).addressable_data(0))
        return told.view(numbers.dtype).reshape(-1, *numbers.shape)
    except (RuntimeError, ValueError) as error:
        raise_if_ended(error)
        raise


@lru_cache(maxsize=1)
def _sharing():
    """(jitted: an array [P, ...] as every process has it; [1, ...] of each -> that array)."""
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    first = [jax.local_devices(i)[0] for i in range(_group.number)]
    mesh = Mesh(np.array(first), ("processes",))
    parts = NamedSharding(mesh, PartitionSpec("processes"))
    share = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))
    return share, partial(jax.make_array_from_process_local_data, parts)


def from_first(make: Callable[[], Any]) -> Any:
    """What process 0 makes, which can be pickled, or the ValueError or TypeError that it raises:
    for all processes."""
    if not _group:
        return make()
    data, found = b"", None
    if is_first():
        try:
            found = make()
            data = pickle.dumps(found)
        except (ValueError, TypeError) as error:
            found = reworded(error, str(error))
            data = pickle.dumps(found)
    size = int(gathered(np.array(len(data), np.int32)).max())
    mine = np.zeros(size, np.uint8)
    mine[: len(data)] = np.frombuffer(data, np.uint8)
    told = gathered(mine)[0].tobytes()
    found = found if is_first() else pickle.loads(told)
    if isinstance(found, Exception):
        raise found
    return found


def check_same(told: Mapping[str, Any]) -> None:
    """Raises ValueError, in all processes, if a value of one is another, as JSON, than process 0's;
    addresses of objects are left out."""
    address = re.compile(r" at 0x[0-9a-f]+")
    own = {name: address.sub("", json.dumps(x, default=_listed)) for name, x in told.items()}
    first = from_first(lambda: own)
    names = [name for name in {**own, **first} if first.get(name) != own.get(name)]
    has_others = gathered(np.array(bool(names)))
    for name in names[:1]:
        here, there = (x.get(name, "not there") for x in (own, first))
        raise ValueError(f"{name} = {here}: is {there} in process 0")
    if has_others.any():
        raise ValueError(f"process {has_others.argmax()} is asked for other things than process 0")


def _listed(thing):
    return thing.tolist() if hasattr(thing, "tolist") else str(thing)
