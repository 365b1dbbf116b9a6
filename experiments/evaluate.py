"""Evaluates a run's policies over fresh full episodes.

python experiments/evaluate.py RUN_DIR --episodes 100
python experiments/evaluate.py RUN_DIR --checkpoint best --sampled
"""

import dataclasses
import sys
import warnings
from pathlib import Path
from typing import Annotated, Literal

import common
import flags
import tyro
from display import evaluation_lines, print_evaluation

from rljax import runs
from rljax.config import MAX_EPISODE_STEPS
from rljax.utils import atomic_io, forkserver


@dataclasses.dataclass(frozen=True)
class Options:
    run_dir: tyro.conf.Positional[Path]
    """The run."""
    episodes: int = 100
    """Full episodes per seed; fresh ones, not those that chose the best checkpoint."""
    envs: int | None = None
    """Environments that Python steps, in which episodes are played at once; by default as many as
    the run was trained with, at most 16."""
    max_steps: int = MAX_EPISODE_STEPS
    """An episode that has not ended by itself after so many steps is cut."""
    sampled: bool = False
    """Sample from the policy instead of taking its mode."""
    checkpoint: Annotated[str, tyro.conf.arg(metavar="last|best|STEP")] = "last"
    """The newest; of each seed the best in evaluations during training; or after STEP steps."""
    device: Literal[flags.DEVICES] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""


def main(argv: list[str]) -> int:
    """Runs; returns the exit status."""
    return common.ended_in_order(lambda signals, _: run(argv, signals))


def run(argv, signals) -> int:
    """What is done between signals."""
    try:
        options = flags.parse_options(Options, __doc__.splitlines()[0], argv)
        _check(options)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            saved = runs.load(options.run_dir, options.checkpoint)
        for warning in caught:
            print(f"warning: {warning.message}", file=sys.stderr)
        flags.set_device(options.device)
        runs.check_network(options.run_dir, saved.config)
        figures = evaluate(saved, options, signals)
        print_evaluation(figures)
        atomic_io.write_json(options.run_dir / "evaluation.json", figures)
    except (ValueError, TypeError, forkserver.EnvError, atomic_io.WriteError) as error:
        return flags.fail(error)
    return 0


def _check(options):
    for name in ("episodes", "envs", "max_steps"):
        value = getattr(options, name)
        if value is not None and not 1 <= value < 2**31:
            raise ValueError(f"{name} = {value}: must be at least 1 and below 2**31")


def evaluate(saved, options, signals) -> dict:
    """What evaluation.json holds."""
    from rljax import evaluation

    lines = evaluation_lines(lambda line: print(line, file=sys.stderr))

    def watch(*now):
        signals.check()
        lines(*now)

    keys = common.seed_keys(saved.seeds)
    learners = evaluation.learners(saved.config, saved.state)
    mode = "sampled" if options.sampled else "greedy"
    played = evaluation.evaluate(
        saved.config,
        learners,
        evaluation.evaluation_keys(keys, evaluation.FRESH),
        options.episodes,
        greedy=not options.sampled,
        num_envs=options.envs,
        max_steps=options.max_steps,
        watch=watch,
    )
    return {
        "env": saved.config.env,
        "checkpoint": options.checkpoint,
        "seeds": saved.seeds,
        "env_steps": saved.env_steps,
        **common.summarize_returns(played, mode, options.max_steps),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
