"""What the code of users raises: told in a line, and told apart from Ctrl-C."""

import signal
import traceback

SIGNALS = {signal.SIGINT, signal.SIGTERM}
"""Those that end a run in order."""

WRONG = (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError)
"""What reading a wrong answer raises."""


def is_interrupt(error: BaseException) -> bool:
    """Whether a signal's handler raised this KeyboardInterrupt, rather than the code that was
    called. Where Python's own handler could have, which leaves no trace, it is taken for it."""
    if not isinstance(error, KeyboardInterrupt):
        return False
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handlers = [signal.getsignal(number) for number in SIGNALS - blocked]
    if signal.default_int_handler in handlers:
        return True
    codes = [getattr(handler, "__code__", None) for handler in handlers]
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))


def text_of(error: BaseException) -> str:
    """What an exception says; its type, where it says nothing or cannot."""
    name = type(error).__name__
    try:
        return str(error) or name
    except Exception:
        return f"{name} (its text cannot be had)"


def in_a_line(error: BaseException) -> str:
    """An exception's kind and text, in a line."""
    kind = type(error).__name__
    try:
        text = " ".join(str(error).split())
    except Exception:
        return kind
    return f"{kind}: {text}" if text else kind


def what_is_wrong(error: Exception) -> str:
    """One of `WRONG`, in a line."""
    line, kind = in_a_line(error), type(error)
    return line.removeprefix(f"{kind.__name__}: ") if kind in (ValueError, TypeError) else line
