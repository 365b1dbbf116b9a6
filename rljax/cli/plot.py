"""The command line that draws the learning curves of runs."""

import dataclasses
import re
from pathlib import Path

import tyro

from rljax import analysis
from rljax.cli import fail, flags, run_script
from rljax.loggers import tables
from rljax.runs import directory
from rljax.utils.atomic_io import WriteError
from rljax.utils.lookup import differing


@dataclasses.dataclass(frozen=True)
class Options:
    run_dirs: tyro.conf.Positional[tuple[Path, ...]]
    """The runs; a curve is labelled by what its settings do not share with the others."""
    output: Path = Path("learning_curves")
    """The figure, without suffix."""


def main(doc: str, argv: list[str] | None = None) -> int:
    """Draws, as PNG and SVG; returns the exit status."""

    def run(argv, signals, stack):
        try:
            options = flags.parse_options(Options, doc.splitlines()[0], argv)
            print(*_draw(options), sep="\n")
        except (ValueError, TypeError, WriteError) as error:
            return fail(error)
        return 0

    return run_script(run, argv)


def _draw(options):
    if not options.run_dirs:
        raise ValueError("run_dirs: must name at least one run directory")
    records = [directory.read_record(run_dir) for run_dir in options.run_dirs]
    metrics = [tables.read_metrics(run_dir) for run_dir in options.run_dirs]
    curves = dict(zip(labels(options.run_dirs, records), metrics))
    name = re.sub(r"\.(png|svg)$", "", options.output.name)
    paths = [options.output.with_name(name + suffix) for suffix in (".png", ".svg")]
    analysis.plot_learning_curves(curves, title(records), *paths)
    return paths


def labels(run_dirs, records) -> list[str]:
    """How each run differs from the others: by its settings, else by its directory."""
    settings = [{"algorithm": r.get("algorithm"), **r["config"]} for r in records]
    names = differing(settings)
    found = [", ".join(f"{n} = {_short(s.get(n))}" for n in names) for s in settings]
    if len(run_dirs) == 1:
        return found
    return [
        label if label and found.count(label) == 1 else f"{label} {run_dir}".strip()
        for label, run_dir in zip(found, run_dirs)
    ]


def title(records) -> str:
    """The algorithms and environments of all runs."""
    algorithms = sorted({str(record.get("algorithm")).upper() for record in records})
    envs = sorted({str(record["config"].get("env")) for record in records})
    return f"{' and '.join(algorithms)} on {' and '.join(envs)}"


def _short(value):
    if isinstance(value, dict):
        return ", ".join(f"{name}={item}" for name, item in value.items()) or "none"
    if isinstance(value, list):
        return "x".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if type(value) is int else str(value)
