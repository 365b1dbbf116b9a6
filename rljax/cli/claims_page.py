"""All claims of a folder of scripts, tested one after another, and the page about them."""

import dataclasses
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rljax.cli import fail, flags, run_script
from rljax.cli.claims import FIGURE, RESULT, Options, folder_of
from rljax.utils import atomic_io
from rljax.utils.lookup import unknown


@dataclasses.dataclass(frozen=True)
class AllOptions(Options):
    only: tuple[str, ...] = ()  # Names of the claims to test; by default all.


def main(
    doc: str, folder: Path, names: Sequence[str], intro: str, argv: list[str] | None = None
) -> int:
    """Tests claims, each by its script in a process of its own; then writes README.md, results/ and
    figures/ of all that were tested into the scripts' folder, or, of --quick, beside their results.
    Returns the exit status.

    Args:
        doc: of the script.
        folder: of the claims' scripts, which have these names, in the order of the page.
        intro: the page's first part.
    """

    def run(argv, signals, stack):
        del signals, stack
        try:
            options = flags.parse_options(AllOptions, doc.splitlines()[0], argv, AllOptions())
            for name in options.only:
                if name not in names:
                    raise ValueError(unknown("claim", name, list(names)))
        except (ValueError, TypeError) as error:
            return fail(error)
        left = [name for name in options.only or names if not _result(options, name)]
        hours = {name: _hours(folder / f"{name}.py") for name in left}
        if not options.quick:
            print(*(f"{name}: about {x:.1f} hours" for name, x in hours.items()), sep="\n")
            print(
                f"{len(left)} claims, about {sum(hours.values()):.1f} hours on two cores",
                flush=True,
            )
        given = ["--run-dir", str(options.run_dir), *["--quick"] * options.quick]
        for name in left:
            status = subprocess.run([sys.executable, str(folder / f"{name}.py"), *given]).returncode
            if status:
                return fail(f"{name} ended with status {status}; the same command resumes it")
        target = options.run_dir / "quick" if options.quick else folder
        _publish(options, folder, target, names, intro)
        print(target / "README.md")
        return 0

    return run_script(run, argv)


def _result(options, name):
    """result.json of a claim that was tested, else None."""
    path = folder_of(options, name) / RESULT
    return atomic_io.read_json(path) if path.exists() else None


def _hours(script):
    """What a script says of itself, in its line of HOURS."""
    return float(re.search(r"^HOURS = ([\d.]+)", script.read_text(), re.MULTILINE)[1])


def _publish(options, folder, target, names, intro):
    parts = [intro.strip() + "\n"]
    for name in names:
        script = f"[`{name}.py`]({name}.py)"
        if not (result := _result(options, name)):
            parts.append(
                f"## {_claim(folder / f'{name}.py').rstrip('.')}\n\nNot tested yet: {script}.\n"
            )
            continue
        for kind, path in ((FIGURE, f"figures/{name}.png"), (RESULT, f"results/{name}.json")):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            atomic_io.write(target / path, (folder_of(options, name) / kind).read_bytes())
        found = "".join(f"- {sentence}\n" for sentence in result["sentences"])
        machine = result["machine"]
        where = f"{machine['device']} ({machine['processor']}), JAX {machine['versions']['jax']}"
        parts.append(
            f"## {result['claim'].rstrip('.')}\n\n**{result['answer']}**\n\n{found}\n"
            f"![{name}](figures/{name}.png)\n\n{script}, whose first lines say how it is measured ·"
            f" [numbers](results/{name}.json) · {where}\n"
        )
    atomic_io.write(target / "README.md", "\n".join(parts).encode())


def _claim(script):
    """The first paragraph of a script's docstring."""
    return " ".join(script.read_text().split('"""')[1].split("\n\n")[0].split())
