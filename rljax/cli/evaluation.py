"""The command line that evaluates a run's policies."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rljax.cli import fail, flags, run_script
from rljax.config import MAX_EPISODE_STEPS
from rljax.loggers.display import evaluation_lines
from rljax.loggers.summaries import print_evaluation
from rljax.runs.options import DEVICES
from rljax.runs.run import load
from rljax.utils import atomic_io, platform
from rljax.utils.checks import check
from rljax.utils.errors import TrainingError


@dataclasses.dataclass(frozen=True)
class Options:
    run_dir: tyro.conf.Positional[Path]
    """The run."""
    episodes: int = 100
    """Full episodes per seed; fresh ones, not those that chose the best checkpoint."""
    envs: int | None = None
    """Environments that Python steps, open at once; by default as many as the run was trained
    with, at most 16."""
    max_steps: int = MAX_EPISODE_STEPS
    """An episode that has not ended after this number of steps is cut."""
    sampled: bool = False
    """Sample from the policy instead of taking its mode."""
    checkpoint: Annotated[str, tyro.conf.arg(metavar="last|best|STEP")] = "last"
    """The newest; of each seed the best in evaluations during training; or after STEP steps."""
    device: Literal[DEVICES] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""


def main(doc: str, argv: list[str] | None = None) -> int:
    """Evaluates, and writes evaluation.json into the run's directory; returns the exit status."""

    def run(argv, signals, stack):
        show = evaluation_lines(lambda line: print(line, file=sys.stderr))

        def watch(*now):
            signals.check()
            show(*now)

        try:
            options = flags.parse_options(Options, doc.splitlines()[0], argv)
            check(options, episodes=1, envs=1, max_steps=1)
            loaded = load(options.run_dir, options.checkpoint)
            stack.enter_context(platform.computing_on(options.device))
            how = (not options.sampled, options.envs, options.max_steps, watch)
            found = loaded.evaluate(options.episodes, *how)
            found = {"env": found.pop("env"), "checkpoint": options.checkpoint, **found}
            print_evaluation(found)
            atomic_io.write_json(options.run_dir / "evaluation.json", found)
        except (ValueError, TypeError, TrainingError, atomic_io.WriteError) as error:
            return fail(error)
        return 0

    return run_script(run, argv)
