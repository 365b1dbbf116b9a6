"""The command line that shows a run's agent playing."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rljax.cli import fail, flags, run_script
from rljax.runs.run import load
from rljax.utils import atomic_io, platform
from rljax.utils.checks import check
from rljax.utils.errors import TrainingError


@dataclasses.dataclass(frozen=True)
class Options:
    run_dir: tyro.conf.Positional[Path]
    """The run."""
    seed: int | None = None
    """One of the run's seeds; by default the first."""
    episodes: int = 3
    """Those that evaluate.py counts first."""
    max_steps: int = 1_000
    """An episode that has not ended after this number of steps is cut."""
    checkpoint: Annotated[str, tyro.conf.arg(metavar="last|best|STEP")] = "last"
    """The newest; the best in evaluations during training; or after STEP steps."""
    output: Path = Path("agent.gif")
    """A .gif or, with the extra video, an .mp4."""
    render: Literal["film", "human"] = "film"
    """Write a film, or show a gymnasium environment in a window."""
    sampled: bool = False
    """Sample from the policy instead of taking its mode."""
    bare: bool = False
    """Leave out return, step, action probabilities and value."""
    fps: float = 30.0
    """Pictures in a second."""


def main(doc: str, argv: list[str] | None = None) -> int:
    """Writes a film, or opens a window; returns the exit status."""

    def run(argv, signals, stack):
        try:
            options = flags.parse_options(Options, doc.splitlines()[0], argv)
            check(options, episodes=1, max_steps=1)
            how = (options.episodes, not options.sampled, options.max_steps)
            if options.render == "human":
                loaded = load(options.run_dir, options.checkpoint)
                stack.enter_context(platform.computing_on("cpu"))
                played = loaded.play(options.seed, *how, render_mode="human")
                what, returns = "shown in a window", [one.returns[-1] for one in played]
            else:
                what, returns = _film(options, how, stack)
        except (ValueError, TypeError, TrainingError, atomic_io.WriteError) as error:
            return fail(error)
        print(f"{what}, returns {', '.join(f'{x:,.2f}' for x in returns)}")
        return 0

    return run_script(run, argv)


def _film(options, how, stack):
    """Writes it; returns (what, returns)."""
    from rljax import watch
    from rljax.watch import film

    film.check(options.output)
    if not 0 < options.fps <= 100:
        raise ValueError(f"fps = {options.fps}: must be above 0 and at most 100")
    loaded = load(options.run_dir, options.checkpoint)
    stack.enter_context(platform.computing_on("cpu"))
    played = loaded.play(options.seed, *how)
    images = watch.drawn(loaded.config.env, played, options.bare)
    number = film.write(options.output, images, options.fps)
    return f"{options.output}: {number:,} pictures", [one.returns[-1] for one in played]
