"""Names looked up: objects by their path, near matches of what is unknown."""

import difflib
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from rljax.utils import errors

_LOST = "has no path by which it could be found: give the object again"


def unknown(kind: str, name: str, known: Sequence[str], listed: str = "") -> str:
    """An error message for an unknown name that offers the nearest known ones; if none is near, all
    of them, or what is `listed` instead."""
    if _is_lost(name):
        return f"{kind} {name!r} {_LOST}"
    found = near(name, known)
    meant = f"did you mean {' or '.join(found)}?"
    offer = meant if found else listed or f"known are {', '.join(known) or 'none'}"
    return f"unknown {kind} {name!r}: {offer}"


def near(name: str, known: Sequence[str], cutoff: float = 0.5) -> list[str]:
    """At most three of the known names, the nearest first, which are like a name to a degree of at
    least `cutoff`, from 0 to 1; upper and lower case are alike."""
    by_lower = {k.lower(): k for k in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=cutoff)
    return [by_lower[k] for k in found]


def differing(records: Sequence[Mapping]) -> list[str]:
    """The names whose values are not the same in all records; one that is absent is None."""
    names = dict.fromkeys(name for record in records for name in record)
    return [n for n in names if any(r.get(n) != records[0].get(n) for r in records)]


def load_attribute(path: str) -> Any:
    """The object that 'package.module:attribute' names; raises a ValueError if there is none."""
    if _is_lost(path):
        raise ValueError(f"{path!r} {_LOST}")
    module_name, _, attribute = path.partition(":")
    found = load_module(path, module_name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{path!r}: {module_name} has no attribute {attribute!r}")
        found = getattr(found, part)
    return found


def load_function(name: str, given: Any) -> Any:
    """The function of a setting, itself or by its path.

    Raises:
        ValueError: the path leads nowhere.
        TypeError: it is no function.
    """
    found = load_attribute(given) if isinstance(given, str) else given
    if not callable(found):
        raise TypeError(f"{name} = {given!r}: must be a function")
    return found


def load_module(path: str, module_name: str) -> Any:
    """A module; raises a ValueError, which names the path, if it cannot be imported."""
    try:
        return importlib.import_module(module_name)
    except (ModuleNotFoundError, TypeError, ValueError) as error:
        raise ValueError(f"{path!r}: {error}") from error
    except BaseException as error:  # whatever the module does, exits among it
        if errors.is_interrupt(error):
            raise
        raise ValueError(f"{path!r}: {errors.in_a_line(error)}") from error


def _is_lost(name):
    """Whether it is how a run records an object that has no path."""
    return name.startswith("<")
