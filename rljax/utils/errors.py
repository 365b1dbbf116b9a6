"""Exceptions of user code: as one line of text, and distinguished from Ctrl-C."""

import contextlib
import signal
import traceback

SIGNALS = {signal.SIGINT, signal.SIGTERM}  # stop a run in an orderly way
WRONG = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
"""What reading a wrong return value, or a damaged file, raises."""


class TrainingError(RuntimeError):
    """Training cannot continue; what was trained before is kept."""


def is_interrupt(error: BaseException) -> bool:
    """Whether a signal handler raised this KeyboardInterrupt, and not the code that was called.
    Python's own handler leaves no trace; while it is installed, every one counts as a signal's."""
    if not isinstance(error, KeyboardInterrupt):
        return False
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handlers = [signal.getsignal(number) for number in SIGNALS - blocked]
    if signal.default_int_handler in handlers:
        return True
    codes = [getattr(handler, "__code__", None) for handler in handlers]
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))


def text_of(error: BaseException) -> str:
    """The text of an exception; its type if the text is empty or raises."""
    name = type(error).__name__
    try:
        return str(error) or name
    except Exception:
        return f"{name} (its text cannot be had)"


def in_a_line(error: BaseException) -> str:
    """The type and text of an exception, in one line."""
    kind, text = type(error).__name__, ""
    with contextlib.suppress(Exception):
        text = " ".join(str(error).split())
    return f"{kind}: {text}" if text else kind


def what_is_wrong(error: Exception) -> str:
    """The text of a ValueError or TypeError, and the type and text of others, in one line."""
    line, kind = in_a_line(error), type(error)
    return line.removeprefix(f"{kind.__name__}: ") if kind in (ValueError, TypeError) else line


def reworded(error: Exception, text: str) -> Exception:
    """An error to raise instead of another, with other words: a TypeError or a ValueError, for the
    constructors of their subclasses need not take a text."""
    return (TypeError if isinstance(error, TypeError) else ValueError)(text)
