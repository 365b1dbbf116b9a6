"""Command lines to settings and options."""

import ast
import contextlib
import dataclasses
import io
import json
import re
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from rljax.config import KeyValues
from rljax.utils.lookup import unknown


def parse(parts: Sequence[Any], description: str, argv: list[str]) -> tuple[Any, ...]:
    """Dataclasses, such as a config and options, with the values of the flags.

    Raises:
        SystemExit: with 0 after --help.
        ValueError: a flag or its value is wrong; in one line.
    """
    kinds = {type(part).__name__: Annotated[type(part), tyro.conf.arg(name="")] for part in parts}
    kind = dataclasses.make_dataclass("Flags", kinds.items(), frozen=True)
    known = [field.name for part in parts for field in dataclasses.fields(part)]
    flags = _cli(kind, argv, description, known, default=kind(*parts), registry=_registry())
    return tuple(getattr(flags, name) for name in kinds)


def parse_options(kind: type, description: str, argv: list[str], default: Any = None):
    """A script's own options, a dataclass, from flags; raises as `parse` does."""
    names = [field.name for field in dataclasses.fields(kind)]
    start = {} if default is None else {"default": default}
    return _cli(kind, argv, description, names, **start)


def given(name: str, argv: list[str]) -> str | None:
    """The value of a flag, the last if it is repeated; read before all flags are known."""
    found = None
    for i, arg in enumerate(argv):
        if arg.startswith(f"--{name}="):
            found = arg.partition("=")[2]
        elif arg == f"--{name}" and i + 1 < len(argv) and not argv[i + 1].startswith("--"):
            found = argv[i + 1]
    return found


def _cli(kind, argv, description, names, **options):
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(kind, args=argv, description=description, **options)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(_one_line(errors.getvalue(), names)) from None


def _registry():
    """Makes tyro read name=value pairs."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def key_values(type_info: tyro.constructors.PrimitiveTypeInfo):
        if type_info.type != KeyValues:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs="*",
            metavar="[NAME=VALUE ...]",
            instance_from_str=lambda texts: tuple(_name_and_value(text) for text in texts),
            is_instance=lambda value: isinstance(value, tuple),
            str_from_instance=lambda pairs: [f"{name}={_written(x)}" for name, x in pairs],
        )

    return registry


def _name_and_value(text):
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not of the form name=value")
    return name, value_of(value)


def value_of(text: str) -> Any:
    """The value of text as Python or JSON writes it: a number, true, false, None or null, a quoted
    string, a list, tuple or dict. Other text stays text, except that one which begins as a list,
    tuple or dict raises ValueError."""
    with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ast.literal_eval(text)
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text, parse_constant=_refuse)
    if text[:1] in ("[", "(", "{"):
        raise ValueError(f"{text!r} is no list, tuple or dict as Python or JSON writes it")
    return None if text == "none" else text


def _refuse(name):
    raise ValueError(name)


def _written(value):
    """Text that `value_of` reads as this value."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            if value_of(value) == value:
                return value
    return repr(value)


def _one_line(box, names):
    """The message in the box that tyro draws around an error: between its first two rules."""
    parts = re.split(r"(?m)^.*[─-]{8,}.*$", box)
    message = " ".join(parts[1].replace("│", " ").split())
    wrong = re.search(r"Unrecognized options: --([\w-]+)", message)
    if wrong:
        flags = [f"--{name.replace('_', '-')}" for name in names]
        return unknown("flag", f"--{wrong[1]}", flags).split(": known")[0]
    return message
