"""The command line that writes a page about runs and sweeps."""

import dataclasses
from pathlib import Path

import tyro

from rljax.cli import fail, flags, run_script
from rljax.utils import platform
from rljax.utils.atomic_io import WriteError


@dataclasses.dataclass(frozen=True)
class Options:
    run_dirs: tyro.conf.Positional[tuple[Path, ...]]
    """The runs and sweeps."""
    output: Path | None = None
    """The page, an .html; by default report.html in the run directory, of several in this
    folder."""
    animation: bool = True
    """Show each run's agent in an episode, for which its environment is made."""


def main(doc: str, argv: list[str] | None = None) -> int:
    """Writes the page; returns the exit status."""

    def run(argv, signals, stack):
        try:
            options = flags.parse_options(Options, doc.splitlines()[0], argv)
            flags.check_run_dirs(options.run_dirs)
            folder = options.run_dirs[0] if len(options.run_dirs) == 1 else Path()
            path = options.output or folder / "report.html"
            if path.suffix not in (".html", ".htm"):
                raise ValueError(f"output = {str(path)!r}: must end in .html")
            from rljax import report

            stack.enter_context(platform.computing_on("cpu"))
            report.write(path, options.run_dirs, options.animation)
        except (ValueError, TypeError, WriteError) as error:
            return fail(error)
        print(f"{path}: {path.stat().st_size / 1e3:,.0f} kB")
        return 0

    return run_script(run, argv)
