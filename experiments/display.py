"""What a training script shows: how far it is, and the ending table."""

import shlex
import time
from collections.abc import Callable
from pathlib import Path

TELL_EVERY = 10.0
"""Seconds between two lines on an evaluation, where there is no live one."""


def evaluation_lines(tell: Callable[[str], None]) -> Callable[[int, int, int], None]:
    """What `evaluate.evaluate` takes to watch it: tells of one that takes long."""
    told = 0.0

    def watch(ended, episodes, steps):
        nonlocal told
        now = time.perf_counter()
        if steps == 0:
            told = now
        elif now - told >= TELL_EVERY:
            told = now
            tell(f"evaluating: {_figures(ended, episodes, steps)}")

    return watch


def _figures(ended, episodes, steps):
    return f"{ended:,}/{episodes:,} episodes · {steps:,} steps"


class Display:
    """A live line on a terminal, plain lines elsewhere, nothing if quiet."""

    def __init__(self, title: str, done: int, total: int, quiet: bool):
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console(quiet=quiet, highlight=False, markup=False, emoji=False)
        self.on_terminal = self.console.is_terminal and not quiet
        self.done, self.total = done, total
        self.reported = 10 * done // total
        self.start = None
        self.console.print(title)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[figures]}"),
            TextColumn("· ETA"),
            TimeRemainingColumn(compact=True),
            console=self.console,
        )
        self.task = self.progress.add_task("compiling", completed=done, total=total, figures="")
        self.group = Group(self.progress)
        self.live = Live(self.group, console=self.console, refresh_per_second=5)
        self.watched = None
        self.tell = evaluation_lines(self.console.print)
        self.evaluated = 0.0

    def __enter__(self):
        if self.on_terminal:
            self.live.start()
        else:
            self.console.print("compiling")
        return self

    def __exit__(self, *exception):
        self.stop()

    def stop(self) -> None:
        self.progress.stop_task(self.task)
        self.live.stop()

    def update(self, steps: int, speed: float, more: str = "", below: str = "") -> None:
        """After a chunk: environment steps, steps per second, and what else there is to say."""
        figures = f"{steps:,}/{self.total:,} env steps · {speed:,.0f} steps/s"
        figures += f" · {more}" * bool(more)
        if below and self.on_terminal:
            self.group.renderables[1:] = [below]
        self.progress.update(self.task, completed=steps, figures=figures, description="training ")
        self.start = self.start or time.perf_counter()
        tenth = 10 * steps // self.total
        if not self.on_terminal and tenth > self.reported:
            self.reported = tenth
            seconds = time.perf_counter() - self.start
            left = seconds * (self.total - steps) / max(1, steps - self.done)
            figures += f" · {below}" * bool(below)
            self.console.print(f"{10 * tenth:3d}% · {figures} · ETA {left:.0f} s", soft_wrap=True)

    def phase(self, name: str) -> None:
        self.progress.update(self.task, description=name)
        if not self.on_terminal:
            self.console.print(name)

    def evaluating(self, ended: int, episodes: int, steps: int) -> None:
        """Between the steps of an evaluation."""
        if not self.on_terminal:
            self.tell(ended, episodes, steps)
        elif (now := time.perf_counter()) - self.evaluated > 0.2:
            self.evaluated, figures = now, _figures(ended, episodes, steps)
            self.progress.update(self.task, description="evaluating", figures=figures)

    def workers(self, label: str, status) -> None:
        """A line for each worker of A3C and one for the holder, below the other.

        Args:
            status: `a3c.Status`.
        """
        if self.on_terminal:
            now, before = time.perf_counter(), self.watched
            if before and label == before[0] and now - before[1] < 0.9:
                return
            self.watched = label, now, status
            if before and label == before[0]:
                self.group.renderables[1:] = [
                    _workers_table(label, before[2], status, now - before[1])
                ]


def _workers_table(label, before, status, seconds):
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2), title=label or None, title_justify="left")
    for name in ("", "steps/s", "episodes", "last return", "staleness", "state"):
        table.add_column(name, justify="left" if name in ("", "state") else "right")
    for i, (then, now) in enumerate(zip(before.workers, status.workers)):
        restarts = f", {now.restarts} restart{'s' * (now.restarts > 1)}" if now.restarts else ""
        known = now.last_return == now.last_return  # NaN before the first episode's end
        table.add_row(
            f"worker {i}",
            f"{(now.steps - then.steps) / seconds:,.0f}",
            f"{now.episodes:,}",
            f"{now.last_return:,.1f}" if known else "",
            f"{now.staleness}" if now.steps else "",
            now.state + restarts,
        )
    counts = status.counts
    rejected = int(counts.stale + counts.not_finite + counts.malformed)
    speed = (int(counts.applied) - int(before.counts.applied)) / seconds
    holder = (
        f"  holder      {speed:,.0f} gradients/s · queue {status.queued:.1f}"
        f" · version {status.version:,}" + f" · {rejected:,} rejected" * bool(rejected)
    )
    return Group(table, Text(holder))


def print_summary(console, summary: dict, run_dir: Path) -> None:
    """The ending table."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{summary['env']} · {summary['algorithm']} · {summary['status']}"))
    table.add_column("", style="bold")
    table.add_column("", justify="right")
    final = summary["final_return"]
    if final:
        _add_returns(table, summary["seeds"], final)
    elif summary["last_return"] is not None:
        table.add_row("last return in training, mean", f"{summary['last_return']:,.2f}")
        table.add_section()
    table.add_row("env steps per seed", f"{summary['env_steps']:,}")
    table.add_row("steps per second", f"{summary['steps_per_second']:,.0f}")
    if "gradients_applied" in summary:
        _add_gradients(table, summary)
    table.add_row("compile", f"{summary['compile_seconds']:.1f} s")
    table.add_row("wall", f"{summary['wall_seconds']:.1f} s")
    console.print(table)
    if "note" in summary:
        console.print(summary["note"])
    if final:
        _print_unfinished(console, final)
    console.print(f"run directory: {run_dir}", soft_wrap=True)
    if summary["status"] == "interrupted":
        console.print(f"to go on: --resume {shlex.quote(str(run_dir))}", soft_wrap=True)


def _add_gradients(table, summary):
    table.add_row("gradients applied", f"{summary['gradients_applied']:,}")
    table.add_row("gradients rejected", f"{summary['gradients_rejected']:,}")
    table.add_row("worker restarts", f"{summary['worker_restarts']:,}")
    staleness = summary["staleness"]
    if staleness["mean"] is not None:
        figures = f"{staleness['mean']:.1f} / {staleness['p95']} / {staleness['max']}"
        table.add_row("staleness: mean / 95% / max", figures)


def print_sweep(console, summary: dict, ranking, most: int) -> None:
    """The ending table of a sweep: its points, the best first.

    Args:
        ranking: what `analysis.rank` gives, or None.
        most: rows.
    """
    from rich.table import Table
    from rich.text import Text

    title = f"{summary['env']} · {summary['algorithm']} · {summary['status']}"
    table = Table(title=Text(title))
    for name in summary["axes"]:
        table.add_column(name, justify="right", overflow="fold")
    for name in ("IQM", "95% interval", "lowest", "diverged"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = [] if ranking is None else ranking[:most].to_dict("records")
    for row in rows:
        settings = (row[name] for name in summary["axes"])
        known = row["iqm"] == row["iqm"]  # else no agent of the sweep has a return
        has_interval = row["low"] == row["low"]
        table.add_row(
            *(f"{x:.6g}" if isinstance(x, float) else str(x) for x in settings),
            f"{row['iqm']:,.2f}" if known else "-",
            f"{row['low']:,.2f} … {row['high']:,.2f}" if has_interval else "-",
            f"{row['lowest']:,.2f}" if known else "-",
            f"{row['diverged']}/{row['seeds']}" if row["diverged"] else "",
        )
    if rows:
        console.print(table)
    if 0 < len(rows) < summary["points"]:
        of_all = f"the best {len(rows)} of {summary['points']:,} points"
        console.print(f"{of_all}; all are in sweep.json")
    console.print(
        f"{summary['agents_finished']:,} of {summary['agents']:,} agents,"
        f" {summary['env_steps']:,} env steps, {summary['steps_per_second']:,.0f} steps/s,"
        f" {summary['wall_seconds']:.1f} s"
    )


def print_evaluation(figures: dict) -> None:
    """What evaluation.json holds."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{figures['env']} · checkpoint {figures['checkpoint']}"))
    table.add_column("", style="bold")
    table.add_column("", justify="right")
    _add_returns(table, figures["seeds"], figures)
    at = sorted(set(figures["env_steps"]))
    steps = f"{at[0]:,}" if len(at) == 1 else f"{at[0]:,} to {at[-1]:,}"
    table.add_row("mean", f"{figures['mean']:,.2f}")
    table.add_row("env steps per seed", steps)
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(table)
    _print_unfinished(console, figures)


def _add_returns(table, seeds, final):
    table.columns[1].header = f"return ({final['mode']}, {final['episodes']} episodes)"
    for seed, value in zip(seeds, final["per_seed"]):
        table.add_row(f"seed {seed}", f"{value:,.2f}")
    table.add_section()
    table.add_row("IQM", f"{final['iqm']:,.2f}")
    if final["ci95"]:  # one seed has none
        low, high = final["ci95"]
        table.add_row("95% interval", f"{low:,.2f} … {high:,.2f}")
    table.add_section()


def _print_unfinished(console, final):
    if final["unfinished"]:
        cut = f"were cut after {final['max_steps']:,} steps"
        console.print(f"{final['unfinished']} episodes did not end by themselves and {cut}")
