"""The names of logged numbers in trackers: those of CleanRL and Stable-Baselines3."""

import math
from collections.abc import Mapping

_AXES = ("seed", "env_steps")
_CHARTS = (
    *("episodic_return", "episodic_length", "learning_rate", "episodes", "updates"),
    *("wall_seconds", "staleness_mean", "staleness_max"),
)


def of(row: Mapping) -> dict[str, float]:
    """The numbers of a row by tag, such as "charts/episodic_return"; without seed and environment
    steps. What is of no episodes is left out."""
    is_empty = math.isnan if row.get("episodes") == 0 else lambda x: False
    return {tag(n): x for n, x in row.items() if n not in _AXES and not is_empty(x)}


def tag(column: str) -> str:
    """The tag of a column: of metrics.csv, or of an evaluation, which begins with "eval/"."""
    if "/" in column:
        return column
    if column == "steps_per_second":
        return "charts/SPS"
    return f"charts/{column}" if column in _CHARTS else f"losses/{column}"
