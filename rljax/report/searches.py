"""The parts of a page about a search."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rljax import analysis
from rljax.report import parts, recipes, sweeps
from rljax.report.html import Element, folded, table, tag
from rljax.runs import directory, labels
from rljax.runs.run import read_summary
from rljax.sweep import results
from rljax.sweep.journal import TABLE
from rljax.sweep.points import describe

MOST_POINTS = 10  # of the ranking that are not folded away


class Told(NamedTuple):
    """What a search left in its directory."""

    run_dir: Path
    record: dict
    metrics: Any  # a `pandas.DataFrame`: results.csv
    summary: dict  # search.json


def is_one(record: Mapping) -> bool:
    """Whether a config.json is that of a search."""
    return record.get("algorithm") == "search"


def read(run_dir: Path) -> Told:
    """Raises ValueError if it is no search's directory, or damaged."""
    record, path = directory.read_record(run_dir), Path(run_dir) / TABLE
    envs = record["run"].get("envs", [])
    if not isinstance(record.get("axes"), dict) or not isinstance(envs, list):
        raise ValueError(f"{str(run_dir)!r}: its config.json is of no search")
    has_begun = path.exists() and path.stat().st_size
    found = results.read(run_dir) if has_begun else results.frame([])
    summary = parts.decoded(read_summary(Path(run_dir), "search.json"))
    return Told(Path(run_dir), record, found, summary)


def title(search: Told) -> str:
    run = search.record["run"]
    envs = run.get("envs") or [search.record["config"].get("env")]
    algorithm, where = str(run.get("algorithm", "")).upper(), ", ".join(map(str, envs))
    return f"{algorithm} on {where}: a search of {', '.join(search.record['axes'])}"


def sections(search: Told) -> list[Element | None]:
    """All about one search."""
    if not len(search.metrics):
        return [tag("p", "No trial has ended.", class_="soft")]
    return [
        _tiles(search),
        *_judged(search),
        *_ranking(search),
        *_brackets(search),
        *_learning(search),
        *_sensitivity(search),
        tag("h3", "What was run"),
        *recipes.chosen(search.record),
        folded("Run it again", *recipes.again(search.record)),
        folded("Versions and machine", recipes.origin(search.record)),
    ]


def _tiles(search):
    summary = search.summary
    status = summary.get("status", "not ended")
    winner = summary.get("points_judged", {}).get("winner", {})
    found = []
    if "fresh" in winner:
        what = f"winner on fresh seeds, 95% interval {parts.ends(winner['fresh']['ci95'])}"
        found.append((parts.number(winner["fresh"]["mean"]), what, False))
    found += [
        (parts.count(summary.get("points")), "points", False),
        (parts.count(summary.get("env_steps")), "environment steps", False),
        (parts.count(summary.get("fresh_env_steps")), "of fresh seeds, besides", False),
        (parts.count(summary.get("steps_per_second")), "steps per second", False),
        (status, "status", status != "completed"),
    ]
    return parts.in_tiles(found)


def _judged(search):
    judged = search.summary.get("points_judged")
    if not judged:
        return []
    every = [x[kind] for x in judged.values() for kind in ("search", "fresh") if kind in x]
    between = parts.scale(end for x in every for end in (*x["ci95"], x["mean"]))
    rows = []
    for name, x in judged.items():
        fresh = x.get("fresh", {})
        rows.append(
            [
                name,
                describe(x["settings"]),
                parts.number(x.get("search", {}).get("mean")),
                parts.number(fresh.get("mean")),
                parts.ends(fresh.get("ci95")),
                parts.track(between, fresh.get("mean"), fresh.get("ci95")),
                parts.number(x.get("optimism")),
                parts.number(x.get("evaluated", {}).get("mean")),
            ]
        )
    head = ["", "settings", "in the search", "fresh seeds", "95% interval", "", "optimism"]
    sentences = [tag("p", text) for text in search.summary.get("sentences", [])]
    found = [tag("h3", "Judged on fresh seeds"), table([*head, "evaluation"], rows), *sentences]
    preset = search.summary.get("preset")
    return [*found, *([folded("Preset", recipes.code(preset), is_open=True)] if preset else [])]


def _ranking(search):
    rows = []
    for place, x in enumerate(search.summary.get("ranking", []), 1):
        returns = x["returns"] if isinstance(x["returns"], list) else [x["returns"]]
        settings = [labels.value(value) for value in x["settings"].values()]
        rows.append([str(place), *settings, f"{x['share']:.0%}", *map(parts.number, returns)])
    if not rows:
        return []
    envs = search.record["run"].get("envs") or ["return"]
    head = ["", *search.record["axes"], "trained", *map(str, envs)]
    found = [tag("h3", "Points, those trained for longest first"), table(head, rows[:MOST_POINTS])]
    more = len(rows) - MOST_POINTS
    return found + [folded(f"The other {more:,}", table(head, rows[MOST_POINTS:]))] * (more > 0)


def _brackets(search):
    rows = []
    for i, bracket in enumerate(search.summary.get("brackets", []), 1):
        for j, x in enumerate(bracket["rungs"], 1):
            numbers = (x["points"], x["kept"], x["by_interval"], x["in_doubt"], x["env_steps"])
            rows.append([f"{i}, rung {j}", f"{x['share']:.0%}", *map(parts.count, numbers)])
    head = ["bracket", "of a run", "points", "go on", "by interval", "ended in doubt", "steps"]
    return [folded("Brackets", table(head, rows))] if rows else []


def _learning(search):
    """The points that were trained for longest, as a sweep's."""
    ranking = search.summary.get("ranking", [])
    if not ranking or "env" in search.metrics:
        return []
    longest = max(x["share"] for x in ranking)
    points = [x["point"] for x in ranking if x["share"] == longest]
    whole = search.metrics[search.metrics["point"].isin(points)]
    return sweeps.learning(search._replace(metrics=whole), analysis.rank(whole))


def _sensitivity(search):
    if "env" in search.metrics:
        return []
    same = analysis.at_same_length(search.metrics)
    names = [n for n in analysis.axes(same) if same[n].nunique() > 1]
    if not names:
        return []
    how = f"Of all trials that were trained for {same['env_steps'].max():,} steps, at that length."
    told = search.summary.get("importance")
    if told:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in told.items())
        how += f" Shares of the variance between points (fANOVA): {shares}."
    drawn = [sweeps.sensitivity(search._replace(metrics=same), name) for name in names]
    found = [tag("h3", "Sensitivity"), tag("p", how, class_="soft")]
    return [*found, tag("div", drawn, class_="charts")]
