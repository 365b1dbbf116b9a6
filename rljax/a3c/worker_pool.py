"""Worker processes: starting, watching, restarting and stopping them. This end needs no JAX."""

import contextlib
import os
import selectors
import time
from collections.abc import Callable, Iterator
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

from rljax.a3c import transport
from rljax.utils import forkserver
from rljax.utils.errors import TrainingError

GRACE = 1.0  # seconds that workers have to stop
MALFORMED = -1  # the kind of what is no message


class WorkerError(TrainingError):
    """A worker cannot continue, and so the run cannot; its traceback is in the message."""


class Message(NamedTuple):
    """Something that happened to a worker."""

    worker: int
    kind: int | None  # of a message; None if the worker died
    content: memoryview | str  # the message; or how the worker died


class _Worker(NamedTuple):
    process: Any
    reader: transport.Reader
    grants: Any  # the end of a pipe, of which `transport.Queue` has the other


class WorkerPool:
    """The workers of a run, whose messages have `usual` and at the most `longest` bytes. A context:
    leaving it stops them all."""

    room = transport.ROOM

    def __init__(self, parameters: transport.SharedParameters, usual: int, longest: int):
        self.parameters, self.usual, self.longest = parameters, usual, longest
        self.workers: dict[int, _Worker] = {}
        self.selector = selectors.DefaultSelector()
        # Should nobody leave it: before multiprocessing waits for its processes.
        self._end = Finalize(None, self._stop, exitpriority=10)

    def __enter__(self):
        forkserver.start_server()
        return self

    def __exit__(self, *exception):
        self._end()

    def start(self, index: int, job: Any) -> None:
        """Starts a worker on a `messages.Job`, with a queue of its own. Raises a TypeError if the
        job cannot be pickled, an OSError or EOFError if the worker or the server dies meanwhile."""
        job = forkserver.packed(job)
        take, put = forkserver.context.Pipe(duplex=False)
        grants_take, grants_put = forkserver.context.Pipe(duplex=False)
        args, name = (index, put, grants_take, self.parameters, job), f"worker {index}"
        process = forkserver.context.Process(target=_run, args=args, name=name, daemon=True)
        try:
            with forkserver.signals_held_back():
                process.start()
        except (OSError, EOFError):
            for end in (take, put, grants_take, grants_put):
                end.close()
            raise
        put.close()  # the worker's are the only other ends, so that its death ends the queue
        grants_take.close()
        reader = transport.Reader(take, self.usual, self.longest)
        self.workers[index] = _Worker(process, reader, grants_put)
        self.selector.register(reader, selectors.EVENT_READ, (index, False))
        self.selector.register(process.sentinel, selectors.EVENT_READ, (index, True))

    def messages(self, timeout: float) -> Iterator[Message]:
        """What has come from workers, in the order in which it came; waits for the first one until
        the timeout, in seconds. The content of a message is valid until the next is taken."""
        waiting = {}  # index: whether it is dead. Workers found later stand in line behind them.
        while True:
            for key, _ in self.selector.select(0 if waiting else timeout):
                index, dead = key.data
                waiting[index] = waiting.get(index, False) or dead
            if not waiting:
                return
            timeout, index = 0, next(iter(waiting))
            yield from self._messages_of(index, dead=waiting.pop(index))

    def _messages_of(self, index, dead):
        reader = self.workers[index].reader
        return messages_of(index, reader, dead, lambda: self._remove(index))

    def grant(self, index: int, version: int = 0) -> None:
        """Gives a worker a grant: in lockstep a turn, which needs this version of the parameters,
        else room for one more gradient. Here workers see all that is published at once."""
        del version
        with contextlib.suppress(BrokenPipeError):  # it died; `messages` will say so
            os.write(self.workers[index].grants.fileno(), b"g")

    def waiting(self) -> int:
        """Bytes in all queues."""
        return sum(worker.reader.waiting() for worker in self.workers.values())

    def _stop(self):
        """Stops all workers and joins them: in order where they can, else by force."""
        for worker in self.workers.values():
            worker.grants.close()
        deadline = time.monotonic() + GRACE
        for index in list(self.workers):
            self.workers[index].process.join(max(0.0, deadline - time.monotonic()))
            self._remove(index)
        self.selector.close()

    def _remove(self, index):
        """Ends a worker; how it ended."""
        worker = self.workers.pop(index)
        self.selector.unregister(worker.reader)
        self.selector.unregister(worker.process.sentinel)
        if worker.process.is_alive():
            worker.process.kill()  # nothing that it holds can be lost, and nobody waits for it
        worker.process.join()
        worker.reader.close()
        worker.grants.close()
        return forkserver.how_it_ended(worker.process.exitcode)


def messages_of(
    index: int, reader: transport.Reader, dead: bool, remove: Callable[[], str]
) -> Iterator[Message]:
    """What a worker's reader has. Where the worker is dead, or what it sends cannot be read, it is
    removed by a function that says how it ended."""
    yield from (Message(index, *message) for message in reader.take(dead))
    if reader.malformed:
        yield Message(index, MALFORMED, memoryview(b""))
        remove()
        yield Message(index, None, "was stopped: its message stream is corrupt")
    elif dead or reader.ended:
        yield Message(index, None, remove())


def _run(index, put, grants, parameters, job):
    """A worker process, from its first line on."""
    forkserver.begin()
    from rljax.a3c import worker
    from rljax.utils import preload  # noqa: F401  before anything imports JAX, the job as well

    worker.run(index, transport.Queue(put, grants), parameters, job)
    os._exit(0)  # nothing is left to do in order, and taking JAX down takes its time
