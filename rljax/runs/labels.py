"""Runs and their settings in words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rljax.utils.lookup import differing


def of_runs(run_dirs: Sequence[Path], records: Sequence[Mapping]) -> list[str]:
    """How each run differs from the others: by its settings, else by its directory."""
    settings = [{"algorithm": r.get("algorithm"), **r["config"]} for r in records]
    names = differing(settings)
    found = [", ".join(f"{n} = {value(s.get(n))}" for n in names) for s in settings]
    if len(run_dirs) == 1:
        return found
    return [
        label if label and found.count(label) == 1 else f"{label} {run_dir}".strip()
        for label, run_dir in zip(found, run_dirs)
    ]


def title(records: Sequence[Mapping]) -> str:
    """The algorithms and environments of all runs."""
    algorithms = sorted({str(record.get("algorithm")).upper() for record in records})
    envs = sorted({str(record["config"].get("env")) for record in records})
    return f"{' and '.join(algorithms)} on {' and '.join(envs)}"


def value(setting: Any) -> str:
    """A setting's value, as config.json has it."""
    if isinstance(setting, dict):
        return ", ".join(f"{name}={item}" for name, item in setting.items()) or "none"
    if isinstance(setting, list):
        return "x".join(map(str, setting)) or "none"
    if isinstance(setting, float):
        return f"{setting:g}"
    return f"{setting:,}" if type(setting) is int else str(setting)
