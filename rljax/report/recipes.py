"""What was run: the settings that were chosen, and how to run it again."""

import contextlib
import dataclasses
import json
import math
import re
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
    options = {name: x for name, (x, _) in changed_options(record).items()}
    if run.get("log_interval") != _usual_interval(record):
        options["log_interval"] = run.get("log_interval")
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
    return _start_from(record, record["run"].get("preset"))


def again(record: Mapping) -> list[Element]:
    """How to run it again: the command line as it was given and, of a run, a program."""
    found = []
    commands = [x.get("command_line") for x in (record, *(record.get("resumed") or []))]
    typed = [_command(text) for text in commands if text and _is_script(text)]
    if typed:
        found += [tag("p", "In a terminal, as it was started:"), code("\n".join(typed))]
    if record["algorithm"] in algorithms.ALGORITHMS:
        with contextlib.suppress(ValueError, TypeError):  # of another version, as `chosen` tells
            found += [tag("p", "In Python:"), code(python(record))]
        lost = [n for n, x in record["config"].items() if str(x).startswith("<")]
        if lost:
            text = f"Give {', '.join(lost)} as the object that it was: it has no path."
            found.append(tag("p", text, class_="soft"))
    return found or [tag("p", "It was not started by a script.", class_="soft")]


def _is_script(command):
    return re.search(r"\.py\b", command) and "ipykernel" not in command


def _command(text):
    """Without the run directory, which holds a run by now; that of a resumption is needed."""
    return re.sub(r" --run-dir[ =]('[^']*'|\S+)", "", text)


def chosen(record: Mapping) -> list[Element]:
    """Tables of the settings: first those that are not the preset's, or not the defaults."""
    try:
        changed, known = changed_settings(record), start(record)
        defaults = _start_from(record, "none")
        options = changed_options(record)
    except (ValueError, TypeError) as error:
        rows = [[name, labels.value(x)] for name, x in record["config"].items()]
        text = f"The settings are of another version: {error}."
        return [tag("p", text, class_="warning"), _facts(["setting", "value"], rows)]
    other = "preset" if known != defaults else "default"
    swept = _swept(record)
    of_sweep = [["axis", text, ""] for text in record["run"].get("axis") or []]
    if swept:
        of_sweep.append(["points", labels.value(len(record["points"])), ""])
    rows = [[n, *map(labels.value, x)] for n, x in changed.items() if n not in ("env", *swept)]
    more = [[n, *map(labels.value, x)] for n, x in options.items()]
    none = tag("p", f"All settings are those of the {other}.", class_="soft")
    rest = [
        [name, labels.value(x)]
        for name, x in record["config"].items()
        if name not in (*changed, *swept) or name == "env"
    ]
    found = [*of_sweep, *rows, *more]
    first = _facts(["setting", "this run", other], found) if found else none
    return [first, folded("All other settings", _facts(["setting", "value"], rest))]


def _swept(record):
    return list(dict.fromkeys(name for point in record.get("points", []) for name in point))


def changed_options(record: Mapping) -> dict[str, tuple[Any, Any]]:
    """The options that changed what a run's files hold, and the algorithm's own, as
    `changed_settings`."""
    known, run = algorithms.find(_algorithm(record)), record["run"]
    env, preset = record["config"].get("env"), run.get("preset")
    usual_own = settings.start_from(_algorithm(record), env, preset).own
    usual = dataclasses.asdict(RunOptions(num_seeds=known.num_seeds))
    names = [name for name in FIXED if name not in ("preset", "log_interval")]
    found = {n: (run[n], usual[n]) for n in names if run.get(n, usual[n]) != usual[n]}
    own = run.get(known.options_name) or {}
    for part in usual_own:
        found |= {n: (own[n], x) for n, x in vars(part).items() if own.get(n, x) != x}
    return found


def _facts(head, rows):
    return table(head, rows, class_="facts")


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
    return _facts([], [[name, str(x)] for name, x in told.items() if x])


def code(text: str) -> Element:
    """Text to copy."""
    copy = tag("button", "copy", type="button", class_="copy", hidden="")
    return tag("div", tag("pre", tag("code", text)), copy, class_="code")


def _start_from(record, preset):
    env = record["config"].get("env")
    config = settings.start_from(_algorithm(record), env, preset).config
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
