"""Command lines: flags into settings and options, errors into a line and an exit status.

Only scripts import it. Each script's module has a `main(..., argv) -> exit status`:

training    a run
evaluation  a run's policies over fresh episodes
plot        learning curves of several runs
export      tables of runs and sweeps to a tracker
watch       a run's agent playing
report      a page about runs and sweeps
sweep       many settings and seeds
tune        a search for good settings
benchmark   tables of speeds, and a line of JSON with all results
suite       a run for each of several environments, and their table
claims      a claim that is tested: resumed sweeps, tuning, a result and a figure
claims_page all claims, and the page about them
flags       what they share: dataclasses as flags
space       axes and points of a sweep, as text
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable

from rljax.runs import Run, divergences, interrupts
from rljax.runs.interrupts import Interrupts
from rljax.utils import hosts
from rljax.utils.atomic_io import WriteError
from rljax.utils.errors import TrainingError


def run_script(
    run: Callable[[list[str], Interrupts, contextlib.ExitStack], int], argv: list[str] | None
) -> int:
    """Runs a script's body; returns the exit status, also where a signal, an environment or the
    disk ends it. Warnings become lines on stderr. By default `argv` is the program's."""
    argv = sys.argv[1:] if argv is None else argv
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where a user's own package.module:attribute is found
    with interrupts.noted() as signals, warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _show
        try:
            return run(argv, signals, stack)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return signals.exit_status
        except TrainingError as error:
            return hosts.leave_ended(fail(error))
        except WriteError as error:
            print(f"error: {error}; resume with --resume from what was saved", file=sys.stderr)
            return 1


def end(run: Run) -> int:
    """Prints what went wrong in a run; returns the exit status."""
    for text in divergences(run.summary):
        print(f"error: {text}", file=sys.stderr)
    if run.error:
        fail(run.error)
    return run.exit_status


def fail(error: Exception) -> int:
    """Prints what is wrong; returns the exit status: 2 for bad input, else 1."""
    print(f"error: {error}", file=sys.stderr)
    return 1 if isinstance(error, WriteError | TrainingError) else 2


def _show(message, category, filename, lineno, file=None, line=None):
    if issubclass(category, UserWarning):
        print(f"warning: {message}", file=sys.stderr)
