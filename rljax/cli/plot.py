"""The command line that draws the learning curves of runs."""

import dataclasses
import re
from pathlib import Path

import tyro

from rljax import analysis
from rljax.cli import fail, flags, run_script
from rljax.loggers import tables
from rljax.runs import directory, labels
from rljax.utils.atomic_io import WriteError


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
    flags.check_run_dirs(options.run_dirs)
    records = [directory.read_record(run_dir) for run_dir in options.run_dirs]
    metrics = [tables.read_metrics(run_dir) for run_dir in options.run_dirs]
    curves = dict(zip(labels.of_runs(options.run_dirs, records), metrics))
    name = re.sub(r"\.(png|svg)$", "", options.output.name)
    paths = [options.output.with_name(name + suffix) for suffix in (".png", ".svg")]
    analysis.plot_learning_curves(curves, labels.title(records), *paths)
    return paths
