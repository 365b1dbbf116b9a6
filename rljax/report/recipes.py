"""What was run: the settings that were chosen, and how to run it again."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from rljax import algorithms
from rljax.config import FLOAT_FIELDS, default_log_interval
from rljax.report.html import Element, folded, table, tag
from rljax.runs import labels, records, settings
from rljax.runs.options import FIXED, RunOptions
from rljax.utils import env_settings, values
from rljax.utils.atomic_io import json_bytes


def python(record: Mapping) -> str:
    """The program that repeats a run, from its config.json."""
    algorithm, config, run = record["algorithm"], record["config"], record["run"]
    chosen = {n: _decoded(n, x) for n, (x, _) in changed_settings(record).items() if n != "env"}
    start = {"env": config["env"]}
    if run.get("preset") is not None:
        start["preset"] = run["preset"]
    known = algorithms.find(algorithm)
    usual = dataclasses.asdict(RunOptions(num_seeds=known.num_seeds))
    names = [name for name in FIXED if name not in ("preset", "log_interval")]
    options = {name: run[name] for name in names if run.get(name, usual[name]) != usual[name]}
    if run.get("log_interval") != _usual_interval(record):
        options["log_interval"] = run.get("log_interval")
    own = run.get(known.options_name) or {}
    for part in known.own:
        options |= {n: own[n] for n, x in vars(part).items() if own.get(n, x) != x}
    arguments = [
        repr(algorithm),
        *(f"{n}={_code(x)}" for n, x in (start | chosen | options).items()),
    ]
    lines = "".join(f"    {argument},\n" for argument in arguments)
    return f"import rljax\n\nrun = rljax.train(\n{lines})\n"


def changed_settings(record: Mapping) -> dict[str, tuple[Any, Any]]:
    """The settings of a run that are not those of its preset, or of the defaults where it has none:
    name to (this run's, the other)."""
    config, base = record["config"], start(record)
    return {n: (x, base.get(n)) for n, x in config.items() if x != base.get(n)}


def start(record: Mapping) -> dict:
    """The settings, as in config.json, that a run started from."""
    env, preset = record["config"].get("env"), record["run"].get("preset")
    config = settings.start_from(_algorithm(record), env, preset).config
    return json.loads(json_bytes(records.config_record(config)))


def again(record: Mapping) -> list[Element]:
    """How to run it again: the command line as it was given and, of a run, a program."""
    parts = []
    command = record.get("command_line") or ""
    if "experiments/" in command:
        parts += [tag("p", "In a terminal, as it was started:"), code(command)]
    if record["algorithm"] in algorithms.ALGORITHMS:
        parts += [tag("p", "In Python:"), code(python(record))]
        lost = [n for n, x in record["config"].items() if str(x).startswith("<")]
        if lost:
            text = f"Give {', '.join(lost)} as the object that it was: it has no path."
            parts.append(tag("p", text, class_="soft"))
    resumed = len(record.get("resumed") or [])
    if resumed:
        times = "once" if resumed == 1 else f"{resumed} times"
        parts.append(tag("p", f"It was resumed {times}; the final settings are shown."))
    return parts


def chosen(record: Mapping) -> list[Element]:
    """Tables of the settings: first those that are not the preset's."""
    changed, known = changed_settings(record), start(record)
    other = "preset" if known != _defaults(record) else "default"
    rows = [
        [name, labels.value(x), labels.value(base)]
        for name, (x, base) in changed.items()
        if name != "env"
    ]
    first = table(["setting", "this run", other], rows, class_="facts")
    none = tag("p", f"All settings are those of the {other}.", class_="soft")
    rest = [[name, labels.value(x)] for name, x in record["config"].items() if name not in changed]
    parts = [first if rows else none]
    return [*parts, folded("All other settings", table(["setting", "value"], rest, class_="facts"))]


def origin(record: Mapping) -> Element:
    """Versions and machine."""
    last = {**record, **(record.get("resumed") or [{}])[-1]}
    told = {
        "device": last.get("device"),
        "processor": last.get("processor"),
        "git commit": last.get("git_commit"),
        "XLA flags": last.get("xla_flags"),
        **last.get("versions", {}),
    }
    return table([], [[name, str(x)] for name, x in told.items() if x], class_="facts")


def code(text: str) -> Element:
    """Text to copy."""
    copy = tag("button", "copy", type="button", class_="copy", hidden="")
    return tag("div", tag("pre", tag("code", text)), copy, class_="code")


def _defaults(record):
    env = record["config"].get("env")
    config = settings.start_from(_algorithm(record), env, "none").config
    return json.loads(json_bytes(records.config_record(config)))


def _algorithm(record):
    return record["run"].get("algorithm", record["algorithm"])  # the former of a sweep


def _usual_interval(record):
    return default_log_interval(records.read_config(record))


def _decoded(name, value):
    if name in FLOAT_FIELDS:
        return values.number(value)
    if name in env_settings.NAMES and isinstance(value, dict):
        return {key: values.decoded(x) for key, x in value.items()}
    return value


def _code(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_code(x)}" for key, x in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_code, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return f"{value:_}" if type(value) is int and abs(value) >= 10_000 else repr(value)
