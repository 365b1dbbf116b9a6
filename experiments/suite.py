"""What scripts that train a whole suite of environments share: the runs, the table, the figure."""

import contextlib
import dataclasses
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Literal

import a2c
import flags
import numpy as np
from signals import SIGNALS

from rljax import analysis, runs
from rljax.config import unknown
from rljax.loggers import tables
from rljax.presets import preset
from rljax.utils import atomic_io


@dataclasses.dataclass(frozen=True)
class Options:
    envs: tuple[str, ...]
    """Environments to train, each with its preset."""
    num_seeds: int
    """Seeds of each."""
    run_dir: Path
    """One run directory for each environment is written in here, and the table and the figure of
    all. What is complete there is not trained again, what was interrupted is gone on with."""
    seed: int = 100
    """The first seed; the presets were found with the seeds from 0 on."""
    readme: Path | None = None
    """Also put the table into this file, between its two markers."""
    figure: Path | None = None
    """Also write the figure to this file."""
    device: Literal[flags.DEVICES] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""
    quiet: bool = False
    """Print nothing but errors, warnings and the table."""


def main(description: str, default: Options, argv: list[str], algorithm: ModuleType = a2c) -> int:
    """Trains, then writes the table and the figure; returns the exit status.

    Args:
        algorithm: the script that trains.
    """
    try:
        options = flags.parse_options(type(default), description, argv, default)
        check(options, default)
        commands = [command(options, env, algorithm.ALGORITHM) for env in options.envs]
    except (ValueError, TypeError) as error:
        return flags.fail(error)
    statuses = []
    for line in filter(None, commands):
        statuses.append(algorithm.main(line))
        if statuses[-1] in SIGNALS.values():
            break
    if any(statuses):
        return next(filter(None, reversed(statuses)))
    try:
        publish(options)
    except (ValueError, atomic_io.WriteError) as error:
        return flags.fail(error)
    return 0


def check(options: Options, default: Options) -> None:
    """What can be checked before anything is trained.

    Raises:
        ValueError: no such environment; or the README's table is asked for and cannot be whole.
    """
    if not options.envs:
        raise ValueError("envs: must name at least one environment")
    for env in options.envs:
        if env not in default.envs:
            raise ValueError(unknown("environment of this suite", env, list(default.envs)))
    if options.readme:
        if options.envs != default.envs:
            raise ValueError("readme: the table there is of all environments; leave --envs out")
        around_table(options)


def command(options: Options, env: str, algorithm: str) -> list[str]:
    """The arguments of the script that train an environment; none where that is done already.

    Raises:
        ValueError: its run directory holds a run of other settings.
    """
    run_dir = options.run_dir / env
    common = ["--device", options.device, *["--quiet"] * options.quiet]
    if not (run_dir / "config.json").exists():
        seeds = ["--seed", str(options.seed), "--num-seeds", str(options.num_seeds)]
        return ["--env", env, *seeds, "--run-dir", str(run_dir), *common]
    record = runs.read_record(run_dir)
    asked = runs.config_record(preset(algorithm, env))
    asked |= {
        "seed": options.seed,
        "num_seeds": options.num_seeds,
        "steps": asked["total_timesteps"],
    }
    there = runs.config_record(runs.read_config(record))
    there |= {name: record["run"].get(name) for name in ("seed", "num_seeds")}
    there["steps"] = there["total_timesteps"]
    if others := flags.other_settings(there, asked):
        raise ValueError(f"{run_dir} is a run of other settings: it has {others}")
    with contextlib.suppress(ValueError):  # it is written again
        if summary(run_dir).get("status") == "completed":
            return []
    return ["--resume", str(run_dir), *common]


def summary(run_dir: Path) -> dict:
    """summary.json; empty where there is none.

    Raises:
        ValueError: it is damaged, or of a completed run without a final evaluation.
    """
    path = run_dir / "summary.json"
    if not path.exists():
        return {}
    try:
        found = atomic_io.read_json(path)
        if found["status"] == "completed":
            _row("", found)
        return found
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is damaged, or of no run with a final evaluation") from error


def around_table(options: Options) -> tuple[str, str]:
    """What stands before and after the table in the README, its markers included.

    Raises:
        ValueError: it has no such markers.
    """
    path, name = options.readme, options.run_dir.name
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    try:
        before, rest = path.read_text().split(begin)
        _, after = rest.split(end)
    except (OSError, ValueError):
        raise ValueError(
            f"readme = {path}: must hold {begin.strip()} and {end} once each"
        ) from None
    return before + begin, end + after


def publish(options: Options) -> None:
    """Writes the table and the figure of all runs."""
    summaries = {env: summary(options.run_dir / env) for env in options.envs}
    record = runs.read_record(options.run_dir / options.envs[0])
    text = table(summaries) + "\n" + caption(record)
    metrics = {env: tables.read_metrics(options.run_dir / env) for env in options.envs}
    figure = options.run_dir / "learning_curves.png"
    analysis.plot_grid(metrics, figure)
    if options.figure:
        atomic_io.write(options.figure, figure.read_bytes())
    atomic_io.write(options.run_dir / "table.md", text.encode())
    if options.readme:
        before, after = around_table(options)  # as it is now: training took its time
        atomic_io.write(options.readme, (before + text + after).encode())
    print(text, figure, sep="\n")


def table(summaries: Mapping[str, Mapping]) -> str:
    """Markdown, from the runs' summaries."""
    head = ("environment", "steps", "IQM", "95% interval", "lowest seed", "seeds", "seconds")
    rows = [head, ("---",) * len(head), *(_row(env, run) for env, run in summaries.items())]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(env, run):
    final = run["final_return"]
    several = len(run["seeds"]) > 1  # one has no interval
    return (
        env if final["mode"] == "greedy" else f"{env} ({final['mode']})",
        f"{run['env_steps']:,}",
        number(final["iqm"]),
        " … ".join(map(number, final["ci95"])) if several else "-",
        number(np.min([float(x) for x in final["per_seed"]])),
        str(len(run["seeds"])),
        f"{run['wall_seconds']:,.0f}",
    )


def number(x: float | str) -> str:
    x = float(x)  # one that is not finite is text in JSON
    return f"{x:.2f}" if abs(x) < 10 else f"{x:.1f}"


def caption(record: Mapping) -> str:
    """One line on how the runs were made."""
    device = record.get("device")
    if device == "cpu":
        device = f"{os.cpu_count()} cores of {record.get('processor')}"
    episodes = record["run"].get("eval_episodes")
    return (
        f"Final evaluation: {episodes} full episodes per seed, greedy where nothing else is said."
        " Seconds are of all seeds together, from the settings to the last file; the first row's"
        f" include imports. {device}, JAX {record.get('versions', {}).get('jax')}.\n"
    )


def script(default: Options, doc: str, algorithm: ModuleType = a2c) -> None:
    description = re.sub(r"\n\n.*", "", doc, flags=re.DOTALL)
    sys.exit(main(description, default, sys.argv[1:], algorithm))
