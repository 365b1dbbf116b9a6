"""Distributions of durations and of staleness, as text. Needs no JAX.

constant:MEAN            or MEAN alone
exponential:MEAN
lognormal:MEAN:SIGMA     SIGMA of the logarithm
pareto:MEAN:ALPHA        heavy-tailed: finite variance from ALPHA = 2 on
slow:MEAN:FACTOR         constant, but FACTOR times as long for the first worker
measured:RUN_DIR         as in a run of A3C with --log-timing; of durations alone

constant:K, uniform:LOW:HIGH, geometric:MEAN     of staleness, in versions
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rljax.a3c import timing
from rljax.utils.checks import shown
from rljax.utils.lookup import unknown
from rljax.utils.traced import Parsed

MEASURED = "measured"
LEAST = 1e-6  # a geometric staleness that is rarer than this is cut


class _Kind(NamedTuple):
    names: tuple[str, ...]  # of its numbers
    is_allowed: Callable[..., bool]
    allowed: str


_DURATIONS = {
    "constant": _Kind(("MEAN",), lambda mean: mean >= 0, "at least 0"),
    "exponential": _Kind(("MEAN",), lambda mean: mean >= 0, "at least 0"),
    "lognormal": _Kind(("MEAN", "SIGMA"), lambda *x: min(x) >= 0, "both at least 0"),
    "pareto": _Kind(("MEAN", "ALPHA"), lambda m, a: m >= 0 and a > 1, "MEAN >= 0 and ALPHA > 1"),
    "slow": _Kind(("MEAN", "FACTOR"), lambda m, f: m >= 0 and f >= 1, "MEAN >= 0 and FACTOR >= 1"),
}
_STALENESS = {
    "constant": _Kind(("K",), lambda k: k >= 0 and k == int(k), "a whole number of at least 0"),
    "uniform": _Kind(
        ("LOW", "HIGH"),
        lambda low, high: 0 <= low <= high and low == int(low) and high == int(high),
        "whole numbers, 0 <= LOW <= HIGH",
    ),
    "geometric": _Kind(("MEAN",), lambda mean: mean >= 0, "at least 0"),
}


def duration(text: str, name: str = "duration") -> Parsed:
    """A distribution of durations, in any unit; raises ValueError or TypeError if it is none.

    Args:
        name: of the setting, for the error.
    """
    if isinstance(text, str) and text.startswith(f"{MEASURED}:"):
        found, before = timing.read(Path(text.partition(":")[2]), name)
        return Parsed((MEASURED, found.shape, before.shape), (found, before))
    return _parsed(text, name, _DURATIONS, more=(MEASURED,))


def staleness(text: str | None, name: str = "staleness") -> Parsed:
    """A distribution of staleness, in versions, of the kind (name, capacity): the largest staleness
    that there is room for, a power of two, so that many distributions share a program. The kind is
    None without text, where staleness is to come of the durations. Raises as `duration` does."""
    if text is None:
        return Parsed(None, ())
    kind, numbers = _parsed(text, name, _STALENESS)
    largest = numbers[-1]
    if kind == "geometric":  # P(X > k) = (mean / (1 + mean)) ** (k + 1)
        largest = math.log(LEAST) / math.log(largest / (1 + largest)) if largest > 0 else 0
    return Parsed((kind, power_of_two(math.ceil(largest))), numbers)


def power_of_two(number: int) -> int:
    """The smallest that is not below a number."""
    return 1 << max(0, number - 1).bit_length()


def mean(parsed: Parsed) -> Any:
    """The mean of a distribution of durations, for all but the first worker; may be traced."""
    return parsed.numbers[0].mean() if is_measured(parsed) else parsed.numbers[0]


def is_measured(parsed: Parsed) -> bool:
    """Whether a distribution is a run's, as `timing.read` gives it."""
    return parsed.kind[0] == MEASURED


def _parsed(text, name, kinds, more=()):
    if isinstance(text, int | float) and not isinstance(text, bool):
        text = f"constant:{text}"
    if not isinstance(text, str):
        raise TypeError(f"{name} = {shown(text)}: must be text such as exponential:0.5")
    kind, *given = text.split(":")
    if not given and _number(kind) is not None:
        kind, given = "constant", [kind]
    if kind not in kinds:
        raise ValueError(unknown(f"kind of {name}", kind, [*kinds, *more]))
    names, is_allowed, allowed = kinds[kind]
    numbers = [_number(x) for x in given]
    if len(numbers) != len(names) or None in numbers:
        raise ValueError(f"{name} = {text!r}: must be {':'.join((kind, *names))}")
    if not all(map(math.isfinite, numbers)) or not is_allowed(*numbers):
        raise ValueError(f"{name} = {text!r}: {' and '.join(names)} must be {allowed}")
    return Parsed(kind, tuple(numbers))


def _number(text):
    try:
        return float(text)
    except ValueError:
        return None
