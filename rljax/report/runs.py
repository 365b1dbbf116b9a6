"""The parts of a page about a run."""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from rljax import analysis
from rljax.analysis.tidy import all_returns
from rljax.loggers import tables
from rljax.report import animation, parts, recipes
from rljax.report.charts import Line, bars, chart
from rljax.report.html import Element, folded, table, tag
from rljax.report.parts import count, curve, number, seconds
from rljax.runs import directory, labels
from rljax.runs.run import read_summary
from rljax.utils import atomic_io, errors

MOST_SEEDS = 32  # that are drawn one by one
_LOSSES = ("policy_loss", "value_loss", "entropy", "explained_variance")
_STALENESS = ("staleness_mean", "staleness_max")
_ELSEWHERE = ("episodic_return", "steps_per_second", *_STALENESS)  # in the page
_COUNTS = ("seed", "env_steps", "updates", "wall_seconds", "episodes")


class Told(NamedTuple):
    """What a run left in its directory."""

    run_dir: Path
    record: dict
    metrics: Any  # a `pandas.DataFrame`
    evaluations: Any  # another, as loggers get its rows; empty if there were none
    summary: dict  # empty while it is in progress

    @property
    def has_several(self) -> bool:
        """Whether there are several seeds."""
        return self.metrics["seed"].nunique() > 1


def read(run_dir: Path) -> Told:
    """Raises ValueError if it is no run directory, or damaged."""
    record, metrics = directory.read_record(run_dir), tables.read_metrics(run_dir)
    evaluations = pd.DataFrame(tables.read_evaluations(run_dir))
    summary = parts.decoded(read_summary(run_dir))
    return Told(Path(run_dir), record, metrics, evaluations, summary)


def title(run: Told) -> str:
    return labels.title([run.record])


def sections(run: Told, most_bytes: int, animated: bool) -> list[Element | None]:
    """All about one run, of which the animation takes at most this number of bytes."""
    how = "IQM over seeds, with its 95% interval." if run.has_several else None
    greedy = run.record["run"].get("eval_mode", "greedy") == "greedy"
    return [
        _tiles(run),
        *_warnings(run.summary),
        tag("h3", "What was run"),
        *recipes.chosen(run.record),
        folded("Run it again", *recipes.again(run.record)),
        tag("h3", "Learning"),
        tag("div", _learning(run), class_="wide"),
        _evaluations(run),
        *_final(run),
        *(animation.shown(run.run_dir, greedy, most_bytes) if animated else []),
        tag("h3", "Losses and other metrics"),
        how and tag("p", how, class_="soft"),
        tag("div", _others(run), class_="charts"),
        *_staleness(run),
        tag("h3", "Speed"),
        _speed(run),
        folded("Versions and machine", recipes.origin(run.record)),
    ]


def _tiles(run):
    """The figures that are asked for first."""
    summary = run.summary
    final, status = summary.get("final_return"), summary.get("status", "not ended")
    found = []
    if final:
        known = parts.ends(final.get("ci95"))
        what = "one seed" if known == "-" else f"IQM, 95% interval {known}"
        found.append((number(final["iqm"]), f"final return ({what})", False))
    elif summary.get("last_return") is not None:
        found.append((number(summary["last_return"]), "last return in training", False))
    ends = run.metrics.groupby("seed")["env_steps"].max()
    found.append((f"{len(ends)}", "seed" if len(ends) == 1 else "seeds", False))
    steps = [f"{x:,}" for x in sorted({*ends})]
    between = " … ".join([steps[0], steps[-1]][: len(steps)]) if steps else "0"
    found.append((between, "environment steps per seed", False))
    if "steps_per_second" in summary:
        found.append((count(summary["steps_per_second"]), "steps per second, all seeds", False))
    found.append((status, "status", status not in ("completed", "stopped")))
    return parts.in_tiles(found)


def _warnings(summary):
    """What went wrong, or is to be known."""
    texts = [summary.get(name) for name in ("error", "warning", "note")]
    diverged = summary.get("diverged")
    if isinstance(diverged, dict):
        texts += [f"Seed {seed} diverged at update {x:,}." for seed, x in diverged.items()]
    return [tag("p", str(text), class_="warning") for text in texts if text]


def _learning(run):
    seeds, steps, returns = all_returns(run.metrics)
    one = f"seed {seeds[0]}" if len(seeds) else ""
    lines = [curve(run.metrics, "IQM and 95% interval" if run.has_several else one)]
    if run.has_several:
        chosen = parts.thinned(steps)
        each = [*zip(seeds, returns)][:MOST_SEEDS]
        lines += [Line(f"seed {seed}", steps[chosen], y[chosen], kind="thin") for seed, y in each]
    found = [chart("Return per episode, in training", lines)]
    if missing := analysis.without_return(run.metrics):
        text = f"No episode ended of seed {', '.join(map(str, missing))}."
        found.append(tag("p", text, class_="soft"))
    if len(seeds) > MOST_SEEDS:
        text = f"The first {MOST_SEEDS} of {len(seeds)} seeds are drawn one by one."
        found.append(tag("p", text, class_="soft"))
    return found


def _evaluations(run):
    if not len(run.evaluations):
        return None
    found = run.evaluations.rename(columns={"eval/episodic_return": "episodic_return"})
    groups = [*found.groupby("seed")]
    if len(groups) == 1:
        lines = [curve(found, f"seed {groups[0][0]}")]
    else:
        lines = [curve(found, "IQM and 95% interval")]
        for seed, rows in groups[:MOST_SEEDS]:
            rows = rows.iloc[parts.thinned(rows)]
            x, y = rows["env_steps"].to_numpy(), rows["episodic_return"].to_numpy()
            lines.append(Line(f"seed {seed}", x, y, kind="thin"))
    return tag("div", chart("Return per episode, in evaluations", lines), class_="wide")


def _final(run):
    final = run.summary.get("final_return")
    if not final:
        return [tag("p", "No evaluation after training.", class_="soft")]
    per_seed, seeds = final["per_seed"], run.summary.get("seeds", run.metrics["seed"].unique())
    last = run.metrics.groupby("seed")["episodic_return"].last()
    between = parts.scale(per_seed)
    rows = [
        [f"seed {seed}", number(x), number(last.get(seed)), parts.track(between, x)]
        for seed, x in zip(seeds, per_seed)
    ]
    if len(per_seed) > 1:
        mark = parts.track(between, final["iqm"], final.get("ci95"))
        rows.append(["IQM", number(final["iqm"]), "", mark])
        mean = final.get("mean")
        rows.append(["mean", number(mean), "", parts.track(between, mean)])
    text = f"{count(final.get('episodes'))} {final.get('mode', '')} episodes of each seed"
    if cut := final.get("unfinished"):
        text += f"; {cut:,} cut after {count(final.get('max_steps'))} steps"
    found = [
        tag("h3", "Evaluation after training"),
        table(["", "return", "last in training", ""], rows),
        tag("p", f"{text}.", class_="soft"),
    ]
    return found + _fresh(run)


def _fresh(run):
    """What evaluate.py found."""
    try:
        found = parts.decoded(atomic_io.read_json(run.run_dir / "evaluation.json"))
        text = f"evaluate.py: {found['episodes']:,} fresh {found['mode']} episodes of each seed, "
        between = parts.ends(found.get("ci95"))
        text += f"IQM {number(found['iqm'])}"
        return [tag("p", text + f", 95% interval {between}." * (between != "-"))]
    except (OSError, *errors.WRONG):
        return []


def _others(run):
    """A chart for each loss and other metric."""
    names = [n for n in run.metrics if n not in (*_COUNTS, *_ELSEWHERE)]
    names = [n for n in _LOSSES if n in names] + [n for n in names if n not in _LOSSES]
    known = [n for n in names if run.metrics[n].notna().any()]
    label = "IQM" if run.has_several else "seed"
    return [chart(name, [curve(run.metrics, label, column=name)]) for name in known]


def _staleness(run):
    if _STALENESS[0] not in run.metrics:
        return []
    summary = run.summary
    lines = [
        curve(run.metrics, name.removeprefix("staleness_"), i, name)
        for i, name in enumerate(_STALENESS)
    ]
    found = summary.get("staleness") or {}
    charts = [chart("Staleness of gradients, in updates", lines)]
    if found.get("histogram"):
        charts.append(bars("Gradients of each staleness", found["histogram"], "updates since"))
    rows = [
        ["gradients applied", count(summary.get("gradients_applied"))],
        ["gradients rejected", count(summary.get("gradients_rejected"))],
        ["worker restarts", count(summary.get("worker_restarts"))],
        [
            "staleness: mean, 95%, max",
            ", ".join(number(found.get(n)) for n in ("mean", "p95", "max")),
        ],
    ]
    counts = [table([], rows)] if summary else []
    return [tag("h3", "Staleness"), tag("div", charts, class_="charts"), *counts]


def _speed(run):
    summary = run.summary
    line = curve(run.metrics, "each seed's share", column="steps_per_second")
    name = "Steps per second, each seed's share" if run.has_several else "Steps per second"
    known = {
        "steps per second, all seeds": count(summary.get("steps_per_second")),
        "compilation": seconds(summary.get("compile_seconds")),
        "wall time": seconds(summary.get("wall_seconds")),
    }
    rows = [[what, x] for what, x in known.items()] if summary else []
    for logger, times in (summary.get("logger_seconds") or {}).items():
        rows.append([f"logger {logger}", ", ".join(f"{n} {x:.2f} s" for n, x in times.items())])
    return tag("div", chart(name, [line]), table([], rows), class_="charts")
