"""Command lines to settings and options."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from rljax.config import KeyValues
from rljax.utils import env_settings, values
from rljax.utils.lookup import unknown


def parse(parts: Sequence[Any], description: str, argv: list[str]) -> tuple[Any, ...]:
    """Dataclasses, such as a config and options, with the values of the flags.

    Raises:
        SystemExit: with 0 after --help.
        ValueError: a flag or its value is wrong; in one line.
    """
    kinds = {type(part).__name__: Annotated[type(part), tyro.conf.arg(name="")] for part in parts}
    kind = dataclasses.make_dataclass("Flags", kinds.items(), frozen=True)
    parts = [_changed(part, _as_pairs) for part in parts]
    known = [field.name for part in parts for field in dataclasses.fields(part)]
    flags = _cli(kind, argv, description, known, default=kind(*parts), registry=_registry())
    return tuple(_changed(getattr(flags, name), _from_pairs) for name in kinds)


def parse_options(kind: type, description: str, argv: list[str], default: Any = None):
    """A script's own options, a dataclass, from flags; raises as `parse` does."""
    names = [field.name for field in dataclasses.fields(kind)]
    start = {} if default is None else {"default": default}
    return _cli(kind, argv, description, names, **start)


def check_run_dirs(run_dirs: Sequence[Path]) -> None:
    """Raises a ValueError if no run directory is named."""
    if not run_dirs:
        raise ValueError("run_dirs: must name at least one run directory")


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
            instance_from_str=_pairs,
            is_instance=lambda value: isinstance(value, tuple),
            str_from_instance=lambda pairs: [_text(name, value) for name, value in pairs],
        )

    return registry


def _as_pairs(given):
    """A setting as pairs alone, as tyro must have it: a function as one without a name."""
    return (("", given),) if env_settings.is_function(given) else given


def _from_pairs(pairs):
    """The inverse of `_as_pairs`."""
    return pairs[0][1] if pairs and pairs[0][0] == "" else pairs


def _changed(part, change):
    """A part with other settings of environments, if it has those."""
    names = [name for name in env_settings.NAMES if hasattr(part, name)]
    return dataclasses.replace(part, **{name: change(getattr(part, name)) for name in names})


def _pairs(texts):
    if len(texts) == 1 and "=" not in texts[0] and env_settings.is_function(texts[0]):
        return _as_pairs(texts[0])
    return tuple(_name_and_value(text) for text in texts)


def _text(name, value):
    return f"{name}={values.written(value)}" if name else str(value)


def _name_and_value(text):
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not of the form name=value")
    return name, values.read(value)


def _one_line(box, names):
    """The message in the box that tyro draws around an error: between its first two rules."""
    parts = re.split(r"(?m)^.*[─-]{8,}.*$", box)
    message = " ".join(parts[1].replace("│", " ").split())
    wrong = re.search(r"Unrecognized options: --([\w-]+)", message)
    if wrong:
        flags = [f"--{name.replace('_', '-')}" for name in names]
        return unknown("flag", f"--{wrong[1]}", flags).split(": known")[0]
    return message
