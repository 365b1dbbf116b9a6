"""The end of a search: search.json, its figures, and what it prints."""

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from rljax import analysis
from rljax.search.brackets import State
from rljax.sweep import results
from rljax.sweep.points import describe
from rljax.sweep.report import print_files
from rljax.utils import atomic_io

SHOWN = 8  # points in the table


def finish(state: State, summary: dict, folder: Path, display: Any) -> None:
    """Writes search.json and preset.txt, and shows what was found."""
    figures = []
    if summary["status"] == "completed" and summary["trials_finished"]:
        table = results.read(folder)
        summary["importance"] = _or_none(analysis.importance, table)
        if len(state.asked.envs) > 1:
            found = _or_none(analysis.sensitivity, analysis.at_same_length(table))
            summary["sensitivity"] = found and found._asdict()
        figures = _draw(table, state, folder)
        atomic_io.write(folder / "preset.txt", f"{summary['preset']}\n".encode())
    atomic_io.write_json(folder / "search.json", summary)
    display.stop()

    def show(console):
        _print(console, state, summary)
        print_files(console, figures, folder, summary["status"])

    display.result(summary, show)


def _or_none(tell, table):
    try:
        return tell(table)
    except ValueError:  # a package is missing, or there are few points
        return None


def _draw(table, state, folder):
    """Final returns against each axis, at one length of training; the paths of the figures."""
    if len(state.asked.envs) > 1:
        return []
    same, drawn = analysis.at_same_length(table), []
    title = f"{state.asked.options.algorithm.upper()} on {state.asked.envs[0]}"
    title += f" after {same['env_steps'].max():,} steps"
    for name in state.asked.axes:
        if same[name].nunique() > 1:
            drawn.append(folder / f"sensitivity_{name}.png")
            analysis.plot_sensitivity(same, name, drawn[-1], title=title)
    return drawn


def _print(console, state, summary):
    if summary.get("ranking"):
        console.print(_ranking(state, summary))
    for bracket, told in enumerate(summary["brackets"], 1):
        for rung, x in enumerate(told["rungs"][:-1], 1):
            if x["by_interval"] or x["in_doubt"]:
                console.print(
                    f"bracket {bracket}, rung {rung}: {x['points']} points, {x['kept']} go on,"
                    f" {x['by_interval']} of them by their interval alone;"
                    f" {x['in_doubt']} ended in doubt",
                    soft_wrap=True,
                )
    judged = summary.get("points_judged", {})
    if any("fresh" in x for x in judged.values()):
        console.print(_judged(summary))
    for sentence in summary.get("sentences", []):
        console.print(sentence, soft_wrap=True)
    if summary.get("importance"):
        told = ", ".join(f"{n} {x:.0%}" for n, x in summary["importance"].items())
        console.print(f"share of the variance between points (fANOVA): {told}", soft_wrap=True)
    if lost := summary.get("sensitivity"):
        console.print(
            f"score with one setting for all environments {lost['fixed']:.2f}, with the best for"
            f" each {lost['tuned']:.2f}: a sensitivity of {lost['sensitivity']:.2f}",
            soft_wrap=True,
        )
    if summary["status"] == "failed":
        console.print("no trial has a return: each failed, diverged, or ended no episode")
    seconds = summary["seconds"]
    console.print(
        f"{summary['points']:,} points, {summary['env_steps']:,} env steps"
        f" and {summary['fresh_env_steps']:,} with fresh seeds,"
        f" {summary['steps_per_second']:,.0f} steps/s, {seconds['wall']:.1f} s",
        soft_wrap=True,
    )
    if "preset" in summary:
        console.print(f"\n{summary['preset']}\n", soft_wrap=True)


def _ranking(state, summary):
    best = summary["ranking"][:SHOWN]
    table = Table(title=Text(f"{summary['env']} · {summary['algorithm']} · {summary['status']}"))
    for name in state.asked.axes:
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("trained", justify="right")
    envs = state.asked.envs
    for env in envs:
        table.add_column("return" if len(envs) == 1 else str(env), justify="right")
    for x in best:
        returns = x["returns"] if isinstance(x["returns"], list) else [x["returns"]]
        values = (describe({"": v}).removeprefix("=") for v in x["settings"].values())
        shown = ("-" if r is None else f"{r:,.2f}" for r in returns)
        table.add_row(*values, f"{x['share']:.0%}", *shown)
    return table


def _judged(summary):
    table = Table(title=Text(f"on {len(_first(summary)['per_seed'])} fresh seeds"))
    names = ("", "search", "fresh", "95% interval", "optimism", "evaluation")
    for name in names:
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for name, x in summary["points_judged"].items():
        fresh = x.get("fresh")
        if not fresh:
            continue
        low, high = fresh["ci95"]
        found = x.get("search"), x.get("optimism"), x.get("evaluated")
        table.add_row(
            name,
            f"{found[0]['mean']:,.2f}" if found[0] else "",
            f"{fresh['mean']:,.2f}",
            f"{low:,.2f} … {high:,.2f}",
            f"{found[1]:+,.2f}" if found[1] is not None else "",
            f"{found[2]['mean']:,.2f}" if found[2] else "",
        )
    return table


def _first(summary):
    return next(x["fresh"] for x in summary["points_judged"].values() if "fresh" in x)
