"""Draws the learning curves of runs into one figure, as PNG and SVG.

python experiments/plot.py RUN_DIR [RUN_DIR ...] --output curves
"""

import dataclasses
import re
import sys
from pathlib import Path

import flags
import tyro

from rljax import analysis, runs
from rljax.config import differing
from rljax.loggers import tables
from rljax.utils import atomic_io


@dataclasses.dataclass(frozen=True)
class Options:
    run_dirs: tyro.conf.Positional[tuple[Path, ...]]
    """The runs; a curve is labelled by what its settings do not share with the others."""
    output: Path = Path("learning_curves")
    """The figure, without suffix."""


def main(argv: list[str]) -> int:
    """Runs; returns the exit status."""
    try:
        options = flags.parse_options(Options, __doc__.splitlines()[0], argv)
        if not options.run_dirs:
            raise ValueError("run_dirs: must name at least one run directory")
        records = [runs.read_record(run_dir) for run_dir in options.run_dirs]
        metrics = [tables.read_metrics(run_dir) for run_dir in options.run_dirs]
        curves = dict(zip(labels(options.run_dirs, records), metrics))
        name = re.sub(r"\.(png|svg)$", "", options.output.name)
        paths = [options.output.with_name(name + suffix) for suffix in (".png", ".svg")]
        analysis.plot_learning_curves(curves, title(records), *paths)
    except (ValueError, TypeError, atomic_io.WriteError) as error:
        return flags.fail(error)
    print(*paths, sep="\n")
    return 0


def labels(run_dirs, records) -> list[str]:
    """What tells each run from the others; where their settings do not, its directory."""
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
    """What all runs share, of algorithm and environment."""
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
