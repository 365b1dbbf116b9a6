"""Ctrl-C and SIGTERM: how a run is ended in order."""

import signal

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""The exit status for each signal that ends a run in order."""


class Signals:
    """Ctrl-C and SIGTERM. The first one is only noted in `received`, to be looked at where the
    run can stop in order: an interrupt in the middle of an import or a compilation can be
    swallowed there, or crash XLA. While not `deferred`, and the second time, they interrupt at
    once."""

    def __enter__(self):
        self.received = None
        self.deferred = True
        self.before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *exception):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number, frame):
        again = self.received is not None
        self.received = number
        if again or not self.deferred:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raises KeyboardInterrupt if a signal has come."""
        if self.received:
            raise KeyboardInterrupt

    @property
    def exit_status(self) -> int:
        return SIGNALS[self.received or signal.SIGINT]
