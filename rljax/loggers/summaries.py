"""The tables that a run, an evaluation or a sweep ends with."""

import shlex
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_summary(console: Any, summary: dict, run_dir: Path | None) -> None:
    """Prints what summary.json holds."""
    table = _table(f"{summary['env']} · {summary['algorithm']} · {summary['status']}")
    final = summary["final_return"]
    if final:
        _add_returns(table, summary["seeds"], final)
    elif summary["last_return"] is not None:
        table.add_row("last return in training, mean", f"{summary['last_return']:,.2f}")
        _add_info(table, summary.get("last_info", {}))
        table.add_section()
    table.add_row("env steps per seed", f"{summary['env_steps']:,}")
    table.add_row("steps per second", f"{summary['steps_per_second']:,.0f}")
    for name in ("gradients_applied", "gradients_rejected", "worker_restarts"):
        if name in summary:
            table.add_row(name.replace("_", " "), f"{summary[name]:,}")
    staleness = summary.get("staleness", {"mean": None})
    if staleness["mean"] is not None:
        values = f"{staleness['mean']:.1f} / {staleness['p95']} / {staleness['max']}"
        table.add_row("staleness: mean / 95% / max", values)
    table.add_row("compile", f"{summary['compile_seconds']:.1f} s")
    table.add_row("wall", f"{summary['wall_seconds']:.1f} s")
    console.print(table)
    if "note" in summary:
        console.print(summary["note"])
    if final:
        _print_unfinished(console, final)
    if run_dir:
        console.print(f"run directory: {run_dir}", soft_wrap=True)
        if summary["status"] in ("interrupted", "stopped"):
            console.print(f"resume with: --resume {shlex.quote(str(run_dir))}", soft_wrap=True)


def print_evaluation(evaluation: dict) -> None:
    """Prints what evaluation.json holds."""
    table = _table(f"{evaluation['env']} · checkpoint {evaluation['checkpoint']}")
    _add_returns(table, evaluation["seeds"], evaluation)
    at = sorted(set(evaluation["env_steps"]))
    steps = f"{at[0]:,}" if len(at) == 1 else f"{at[0]:,} to {at[-1]:,}"
    table.add_row("mean", f"{evaluation['mean']:,.2f}")
    table.add_row("env steps per seed", steps)
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(table)
    _print_unfinished(console, evaluation)


def print_sweep(console: Any, summary: dict, ranking: Any, most: int) -> None:
    """Prints a sweep's best points, at most this number, from the ranking of `analysis.rank`."""
    title = f"{summary['env']} · {summary['algorithm']} · {summary['status']}"
    table = Table(title=Text(title))
    for name in summary["axes"]:
        table.add_column(name, justify="right", overflow="fold")
    for name in ("IQM", "95% interval", "lowest", "diverged"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = [] if ranking is None else ranking[:most].to_dict("records")
    for row in rows:
        settings = (row[name] for name in summary["axes"])
        known = row["iqm"] == row["iqm"]  # else no trial of the sweep has a return
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
        shown = f"the best {len(rows)} of {summary['points']:,} points"
        console.print(f"{shown}; all are in sweep.json")
    console.print(
        f"{summary['agents_finished']:,} of {summary['agents']:,} trials,"
        f" {summary['env_steps']:,} env steps, {summary['steps_per_second']:,.0f} steps/s,"
        f" {summary['wall_seconds']:.1f} s"
    )


def _table(title):
    table = Table(title=Text(title))
    table.add_column("", style="bold")
    table.add_column("", justify="right")
    return table


def _add_returns(table, seeds, final):
    table.columns[1].header = f"return ({final['mode']}, {final['episodes']} episodes)"
    for seed, value in zip(seeds, final["per_seed"]):
        table.add_row(f"seed {seed}", f"{value:,.2f}")
    table.add_section()
    table.add_row("IQM", f"{final['iqm']:,.2f}")
    if final["ci95"]:  # one seed has none
        low, high = final["ci95"]
        table.add_row("95% interval", f"{low:,.2f} … {high:,.2f}")
    _add_info(table, final.get("info", {}))
    table.add_section()


def _add_info(table, info):
    for name, value in info.items():
        table.add_row(f"{name}, mean", f"{value:,.4g}")


def _print_unfinished(console, final):
    if final["unfinished"]:
        cut = f"were cut after {final['max_steps']:,} steps"
        console.print(f"{final['unfinished']} episodes did not end by themselves and {cut}")
