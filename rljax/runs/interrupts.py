"""Ctrl-C and SIGTERM: how a run ends in order."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import numpy as np

from rljax.utils import hosts

EXIT_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""The exit status of a program that a signal ended in order."""

_current = None


class Interrupts:
    """Ctrl-C and SIGTERM. The first one is only noted in `received`, and checked where the run can
    stop in order: an interrupt in the middle of an import or a compilation can be swallowed there,
    or crash XLA. While not `deferred`, and the second time, they interrupt at once."""

    def __init__(self):
        self.received: int | None = None
        self.deferred = True
        self.is_shared = False  # several processes stop at once, where they `agree`
        self._noted: int | None = None

    def receive(self, number, frame):
        """Handles both signals."""
        again, self._noted = self._noted is not None, number
        if not self.is_shared:
            self.received = number
        if again or not (self.deferred or self.is_shared):
            raise KeyboardInterrupt

    def agree(self) -> None:
        """Of several processes: all have received what one has."""
        if self.is_shared:
            self.received = int(hosts.gathered(np.array(self._noted or 0)).max()) or None

    def check(self) -> None:
        """Raises KeyboardInterrupt if a signal has come."""
        if self.received:
            raise KeyboardInterrupt

    @property
    def exit_status(self) -> int:
        return EXIT_STATUS[self.received or signal.SIGINT]


@contextlib.contextmanager
def noted() -> Iterator[Interrupts]:
    """Handles both signals in the block; a block within another shares its `Interrupts`. Only the
    main thread can handle signals: in others none comes."""
    global _current
    if _current or threading.current_thread() is not threading.main_thread():
        yield _current or Interrupts()
        return
    _current = Interrupts()
    before = {number: signal.signal(number, _current.receive) for number in EXIT_STATUS}
    try:
        yield _current
    finally:
        _current = None
        for number, handler in before.items():
            signal.signal(number, handler)
