"""The command line of scripts that train a suite of environments: runs, table and figure."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from rljax import algorithms, analysis
from rljax.cli import end, fail, flags, run_script
from rljax.loggers import tables
from rljax.runs import directory, settings
from rljax.runs.options import DEVICES
from rljax.runs.run import read_summary
from rljax.utils import atomic_io, errors
from rljax.utils.lookup import unknown


@dataclasses.dataclass(frozen=True)
class Options:
    envs: tuple[str, ...]
    """Environments to train, each with its preset."""
    num_seeds: int
    """Seeds of each."""
    run_dir: Path
    """A run directory for each environment is written in here, and the table and the figure of
    all. What is complete there is not trained again, what was interrupted is resumed."""
    seed: int = 100
    """The first seed; the presets were found with the seeds from 0 on."""
    readme: Path | None = None
    """Also put the table into this file, between its two markers."""
    figure: Path | None = None
    """Also write the figure to this file."""
    device: Literal[DEVICES] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""
    quiet: bool = False
    """Print nothing but errors, warnings and the table."""


class Suite(NamedTuple):
    """What a script trains."""

    algorithm: str
    tasks: Mapping[str, Mapping[str, Any]]  # by name, in the table and of the run directory
    variants: Mapping[str, Mapping[str, Any]]  # by label; the first one's has the task's name alone

    def names(self, task: str) -> dict[str, str]:
        """The names of a task's run directories, by the label of the variant."""
        first = next(iter(self.variants))
        return {x: task if x == first else f"{task}-{x}" for x in self.variants}


def main(
    algorithm: str,
    doc: str,
    tasks: Sequence[str] | Mapping[str, Mapping[str, Any]],
    num_seeds: int,
    run_dir: str,
    argv: list[str] | None = None,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
) -> int:
    """Trains, then writes the table and the figure; returns the exit status.

    Args:
        doc: of the script; its first line is the description in the help text.
        tasks: environments with a preset; or, by name, what to train: the `env` or the `preset`
            that settings start from, and settings on top of it. --envs takes these names.
        num_seeds, run_dir: defaults of the flags.
        variants: settings by label, with each of which every task is trained; the first label is
            that of the task's row, further ones have columns beside it.
    """
    if not isinstance(tasks, Mapping):
        tasks = {env: {"env": env} for env in tasks}
    suite = Suite(algorithm, tasks, variants or {"": {}})
    default = Options(tuple(tasks), num_seeds, Path(run_dir))

    def run(argv, signals, stack):
        from rljax.runs import training

        try:
            options = flags.parse_options(Options, doc.splitlines()[0], argv, default)
            _check(options, tuple(tasks))
            runs = [(task, label) for task in options.envs for label in suite.variants]
            asked = [_asked(suite, options, *names) for names in runs]
            status = 0
            for one, is_resumed in filter(None, asked):
                done = training.execute(one, resume=is_resumed)
                status = end(done) or status
                if done.status == "interrupted":
                    break
            if not status:
                _publish(suite, options)
            return status
        except (ValueError, TypeError) as error:
            return fail(error)

    return run_script(run, argv)


def _check(options, known):
    """Raises ValueError for what is wrong before anything is trained."""
    if not options.envs:
        raise ValueError("envs: must name at least one environment")
    for env in options.envs:
        if env not in known:
            raise ValueError(unknown("environment of this suite", env, list(known)))
    if options.readme:
        if options.envs != known:
            raise ValueError("readme: the table there is of all environments; leave --envs out")
        _around_table(options)


def _asked(suite, options, task, label):
    """(the settings of a task's run, whether it is resumed); None if it is complete. Raises
    ValueError if its run directory holds a run of other settings."""
    run_dir = options.run_dir / suite.names(task)[label]
    told = {name: getattr(options, name) for name in ("seed", "num_seeds", "device", "quiet")}
    asked = started(suite, task, label).replace({**told, "run_dir": run_dir})
    if not (run_dir / "config.json").exists():
        return asked, False
    saved = settings.saved(run_dir)
    asked = asked._replace(config=algorithms.settle(asked.config, asked.own))
    there, here = (
        {**settings.record(x)["config"], "seed": x.options.seed, "num_seeds": x.options.num_seeds}
        for x in (saved, asked)
    )
    if others := settings.others(there, here):
        raise ValueError(f"{run_dir} is a run of other settings: it has {others}")
    if _summary(run_dir).get("status") == "completed":
        return None
    return saved.replace({"device": options.device, "quiet": options.quiet}), True


def started(suite: Suite, task: str, label: str) -> settings.Settings:
    """The settings of a task in one variant, before those of the flags."""
    changes = {"env": None, "preset": None, **suite.tasks[task], **suite.variants[label]}
    known = settings.start_from(suite.algorithm, changes.pop("env"), changes.pop("preset"))
    return known.replace(changes)


def _summary(run_dir):
    """summary.json; empty if there is none, or it is damaged: then it is written again."""
    summary = read_summary(run_dir)
    try:
        if summary["status"] == "completed":
            _row("", {"": summary})
        return summary
    except errors.WRONG:
        return {}


def _around_table(options):
    """The README before and after its table, markers included."""
    path, name = options.readme, options.run_dir.name
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    try:
        before, rest = path.read_text().split(begin)
        _, after = rest.split(end)
    except (OSError, ValueError):
        markers = f"{begin.strip()} and {end}"
        raise ValueError(f"readme = {path}: must hold {markers} once each") from None
    return before + begin, end + after


def _publish(suite, options):
    """Writes the table and the figure of all runs, and a line of JSON with their summaries."""
    names = {task: suite.names(task) for task in options.envs}
    folders = {x: options.run_dir / x for runs in names.values() for x in runs.values()}

    def grouped(by_name):
        return {task: {x: by_name[y] for x, y in runs.items()} for task, runs in names.items()}

    summaries = {name: _summary(folder) for name, folder in folders.items()}
    for name, summary in summaries.items():
        if not summary.get("final_return"):
            path = folders[name] / "summary.json"
            raise ValueError(f"{path} is damaged, or of no run with a final evaluation")
    record = directory.read_record(options.run_dir / options.envs[0])
    text = table(grouped(summaries)) + "\n" + _caption(record)
    figure = options.run_dir / "learning_curves.png"
    metrics = {name: tables.read_metrics(folder) for name, folder in folders.items()}
    analysis.plot_grid(grouped(metrics), figure)
    if options.figure:
        atomic_io.write(options.figure, figure.read_bytes())
    atomic_io.write(options.run_dir / "table.md", text.encode())
    line = {**directory.machine(record.get("device")), "runs": summaries}
    atomic_io.append(options.run_dir / "results.jsonl", atomic_io.json_bytes(line).decode())
    if options.readme:
        before, after = _around_table(options)  # as it is now: training took its time
        atomic_io.write(options.readme, (before + text + after).encode())
    print(text, figure, sep="\n")


def table(rows: Mapping[str, Mapping[str, Mapping]]) -> str:
    """The Markdown table of the summaries of runs: by the name of a row, then by the label of a
    variant, the same ones in all rows. Seconds and lowest seed are of the first variant."""
    labels = [*next(iter(rows.values()))][1:]
    beside = [column for label in labels for column in (f"{label}: IQM", "95% interval")]
    first = ("environment", "steps", "IQM", "95% interval", "lowest seed")
    head = (*first, *beside, "seeds", "seconds")
    lines = [head, ("---",) * len(head), *(_row(*row) for row in rows.items())]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _row(name, runs):
    run, *others = runs.values()
    final = run["final_return"]
    return (
        name if final["mode"] == "greedy" else f"{name} ({final['mode']})",
        f"{run['env_steps']:,}",
        *_estimate(run),
        _number(np.min([float(x) for x in final["per_seed"]])),
        *(column for other in others for column in _estimate(other)),
        str(len(run["seeds"])),
        f"{run['wall_seconds']:,.0f}",
    )


def _estimate(run):
    """(IQM, interval) of a run."""
    final = run["final_return"]
    several = len(run["seeds"]) > 1  # one has no interval
    return _number(final["iqm"]), " … ".join(map(_number, final["ci95"])) if several else "-"


def _number(x):
    x = float(x)  # one that is not finite is text in JSON
    return f"{x:.2f}" if abs(x) < 10 else f"{x:.1f}"


def _caption(record):
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
