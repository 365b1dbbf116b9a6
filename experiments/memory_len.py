"""Scores A2C by bsuite's memory_len: chains of 1 to 100 steps, 10,000 episodes of each.

python experiments/memory_len.py
python experiments/memory_len.py --num-seeds 1 --run-dir runs/memory_len_once

The preset of MemoryChain is trained, recurrent and feed-forward, with fewer environments, in one
sweep, which is resumed if it was interrupted. As in bsuite (Osband et al. 2020, arXiv 1908.03568;
memory_len/analysis.py of version 0.3.6), a length is solved if the regret over all of its episodes,
from the first on, is below 0.75 of a random agent's; the score is the share of lengths that are
solved.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rljax import analysis
from rljax.cli import fail, flags, run_script
from rljax.runs import settings
from rljax.runs.options import DEVICES
from rljax.sweep.options import SweepOptions
from rljax.utils import atomic_io
from rljax.utils.checks import check

LENGTHS = (*range(1, 11), 12, 14, 17, 20, 25, *range(30, 101, 10))
RANDOM_PERFECT = 0.5  # the share of a random agent's episodes that end with the right action
SOLVED_BELOW = 0.75  # of a random agent's regret
NUM_ENVS = 4  # few, as 10,000 episodes of length 1 are 20,000 steps, for all updates
LENGTH = "env_params.memory_length"
LONGEST = 998  # episodes of more than 999 steps would be truncated


@dataclasses.dataclass(frozen=True)
class Options:
    run_dir: Path = Path("runs/memory_len")
    """The sweep's directory, in which memory_len.csv and memory_len.png are written, too."""
    lengths: tuple[int, ...] = LENGTHS
    """Lengths of chains."""
    episodes: int = 10_000
    """Episodes of each length at most: training is a whole number of rollouts."""
    num_seeds: int = 5
    """Seeds of each length, over which its regret is averaged."""
    seed: int = 100
    """The first seed."""
    device: Literal[DEVICES] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""
    quiet: bool = False
    """Print nothing but errors, warnings and the table."""

    def validate(self) -> "Options":
        """Raises ValueError or TypeError if an option is out of its range or of another type."""
        check(self, episodes=1, num_seeds=1, seed=0)
        if not self.lengths or not all(1 <= length <= LONGEST for length in self.lengths):
            raise ValueError(f"lengths = {self.lengths}: must be one or more from 1 to {LONGEST}")
        return self


def main(argv: list[str] | None = None) -> int:
    """Trains and scores; returns the exit status."""

    def run(argv, signals, stack):
        from rljax.sweep import directory as sweeps  # and with it JAX, which --help does without
        from rljax.sweep import results

        try:
            options = flags.parse_options(Options, __doc__.splitlines()[0], argv).validate()
            sweep = stack.enter_context(sweeps.prepared(sweeps.resumed(asked(options))))
        except (ValueError, TypeError) as error:
            return fail(error)
        done = sweep()
        if done.exit_status:
            for failure in done.failures[:1]:
                print(f"error: {failure.trial}: {failure.why}", file=sys.stderr)
            return done.exit_status
        rows = results.read(options.run_dir)
        analysis.plot_sensitivity(rows, LENGTH, options.run_dir / "memory_len.png", by="core")
        found = regrets(rows)
        atomic_io.write(options.run_dir / "memory_len.csv", found.to_csv(index=False).encode())
        print(table(found))
        return 0

    return run_script(run, argv)


def asked(options: Options) -> Any:
    """The `sweep.directory.Asked` of the options."""
    from rljax.sweep.directory import Asked

    preset = settings.start_from("a2c", "MemoryChain-bsuite").config
    base = dataclasses.replace(preset, num_envs=NUM_ENVS)
    batch, agents = base.batch_size, ((base.core, base.core_inputs), ("none", ()))
    points = [
        {
            LENGTH: length,
            "total_timesteps": max(options.episodes * (length + 1) // batch, 1) * batch,
            "core": core,
            "core_inputs": core_inputs,
        }
        for core, core_inputs in agents
        for length in options.lengths
    ]
    told = {name: getattr(options, name) for name in ("run_dir", "num_seeds", "seed", "device")}
    how = SweepOptions(**told, quiet=options.quiet, eval_episodes=0)
    return Asked(base, how, (), points, heat_map=False)


def regrets(rows: Any) -> Any:
    """A `pandas.DataFrame` of a row for each core, length and seed, from the sweep's table: the
    episodes, how many were perfect, and the regret as a share of a random agent's.

    Every episode returns 1 or -1, so that the sums of returns are whole numbers, and exact.
    """
    sums = (rows["episodes"] * rows["episodic_return"].fillna(0)).round().astype(int)
    names = ["core", "memory_length", "seed"]
    columns = rows.assign(memory_length=rows[LENGTH], total_return=sums)
    found = columns.groupby(names, sort=False)[["episodes", "total_return"]].sum().reset_index()
    perfect = (found["episodes"] + found["total_return"]) // 2
    regret = (found["episodes"] - perfect) / found["episodes"] / (1 - RANDOM_PERFECT)
    return found.assign(perfect=perfect, regret=regret)


def solved(found: Any) -> dict[str, dict[int, bool]]:
    """Whether each length is solved, by core, from `regrets`."""
    means = found.groupby(["core", "memory_length"], sort=False)["regret"].mean()
    return {core: (x.droplevel(0) < SOLVED_BELOW).to_dict() for core, x in means.groupby("core")}


def table(found: Any) -> str:
    """The Markdown table of `regrets`."""
    lines = ["| core | score | lengths solved | the longest of them |", "| --- | --- | --- | --- |"]
    for core, lengths in solved(found).items():
        which = [length for length, is_solved in lengths.items() if is_solved]
        score, longest = np.mean([*lengths.values()]), max(which, default="-")
        lines.append(f"| {core} | {score:.2f} | {len(which)} of {len(lengths)} | {longest} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
