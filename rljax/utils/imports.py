"""Imports that are put off."""

import contextlib
import importlib
import sys
import warnings
from collections.abc import Iterator
from importlib import util
from types import ModuleType


def check_installed(what: str, extra: str, *modules: str, name: str = "") -> None:
    """Raises ValueError, with the command that installs them, if a module is not there.

    Args:
        what: needs it, such as a setting and its value.
        extra: of this package, which brings the modules.
        name: of the package, where it is not the module's.
    """
    for module in modules:
        if not _is_there(module):
            how = f'pip install -e ".[{extra}]"'
            raise ValueError(f"{what}: the package {name or module} is missing: {how}")


def _is_there(module):
    is_forbidden = module in sys.modules and sys.modules[module] is None
    found = None if is_forbidden else util.find_spec(module)
    return found is not None and found.origin is not None  # else a folder that has the name


def optuna(what: str) -> ModuleType:
    """Optuna, without what it says of its progress bars; raises as `check_installed` does."""
    check_installed(what, "search", "optuna")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("optuna")


@contextlib.contextmanager
def deferred(*names: str) -> Iterator[None]:
    """What is imported in the block gets a stand-in for each of these modules, which imports the
    module itself when an attribute of it is used. Modules that are imported already are left as
    they are, and so is `sys.modules` after the block."""
    stand_ins = {name: _stand_in(name) for name in names if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _stand_in(name):
    module = ModuleType(name)

    def attribute(attribute):
        if sys.modules.get(name) is module:  # used inside the block
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    module.__getattr__ = attribute
    return module
