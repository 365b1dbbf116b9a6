"""Imports that are put off."""

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType


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
