"""Suites of environments written in JAX, each an extra of this package and a prefix of ids.

`brax/ant` is what the module `suites.brax` makes of "ant". Such a module is imported when one of
its environments is made or listed, and has two functions:

    make(name, **kwargs) -> source    an environment in gymnax's form, of the suite's keyword
                                      arguments; a ValueError for an unknown name
    ids() -> list[str]                the names that `make` takes

Its prefix is the name of the package that it imports, and of the extra that installs it.
"""

import importlib
import importlib.util
import logging
from collections.abc import Callable
from types import ModuleType

from rljax.utils.errors import in_a_line

MISSING = "a package is missing: "
SUITES = ("brax", "craftax", "jumanji", "octax", "pgx", "xminigrid")
_NIGHTLY = "its dependencies ask for a nightly build of TensorFlow Probability"
REFUSED = {
    "kinetix": "it asks for a JAX of at most 0.9.0",
    "navix": _NIGHTLY,
    "pobax": _NIGHTLY,
    "popgym_arcade": "it installs another package over gymnax",
}
"""Suites that do not work beside this package, and why."""


def prefix(env: str) -> str | None:
    """The suite that an id names, or None; a ValueError for one that is refused."""
    name = env.partition("/")[0]
    if name.replace("-", "_") in REFUSED:
        why = REFUSED[name.replace("-", "_")]
        raise ValueError(f"env = {env!r}: {name} is not supported: {why}")
    return name if name in SUITES and "/" in env else None


def factory(env: str) -> Callable:
    """What makes the environment of an id "suite/name", of keyword arguments; a ValueError if the
    suite cannot be imported."""
    suite, _, name = env.partition("/")
    try:
        make = load(suite).make
    except ValueError as error:
        raise ValueError(f"env = {env!r}: {error}") from error

    def build(**kwargs):
        before = logging.root.manager.disable
        logging.disable(max(before, logging.WARNING))  # a hub tells of each try to download
        try:
            return make(name, **kwargs)
        except OSError as error:
            what = f"what it downloads when first made cannot be had: {in_a_line(error)}"
            raise ValueError(what) from error
        finally:
            logging.disable(before)

    build.__registration__ = make
    return build


def ids(suite: str) -> list[str]:
    """All ids of a suite; a ValueError if it cannot be imported."""
    return [f"{suite}/{name}" for name in load(suite).ids()]


def load(suite: str) -> ModuleType:
    """The module of a suite.

    Raises:
        ValueError: the suite is not installed, and how to install it; or why it fails.
    """
    try:
        return importlib.import_module(f"{__name__}.{suite}")
    except Exception as error:
        package = (getattr(error, "name", None) or "rljax").partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and importlib.util.find_spec(package) is None:
            raise ValueError(f"{MISSING}pip install 'rljax[{suite}]'") from error
        raise ValueError(f"{suite} cannot be imported: {in_a_line(error)}") from error
