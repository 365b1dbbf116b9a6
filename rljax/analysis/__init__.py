"""Statistics over seeds and tasks, and figures, from tidy tables.

statistics  aggregates, intervals, profiles and comparisons of scores
tidy        what a table of metrics or a sweep's says: curves, final returns, ranks
figures     pictures of it; each function returns the figure, for a notebook to show
"""

from rljax.analysis.figures import (
    COLORS,
    STYLES,
    plot_grid,
    plot_heat_map,
    plot_learning_curves,
    plot_performance_profiles,
    plot_sensitivity,
)
from rljax.analysis.statistics import (
    Comparison,
    Estimate,
    aggregate_iqm,
    aggregate_mean,
    aggregate_median,
    aggregate_optimality_gap,
    compare,
    estimate,
    interval,
    iqm,
    performance_profile,
    probability_of_improvement,
)
from rljax.analysis.tidy import (
    axes,
    final_returns,
    learning_curve,
    rank,
    scores,
    split,
    without_return,
)

__all__ = [
    "COLORS",
    "STYLES",
    "Comparison",
    "Estimate",
    "aggregate_iqm",
    "aggregate_mean",
    "aggregate_median",
    "aggregate_optimality_gap",
    "axes",
    "compare",
    "estimate",
    "final_returns",
    "interval",
    "iqm",
    "learning_curve",
    "performance_profile",
    "plot_grid",
    "plot_heat_map",
    "plot_learning_curves",
    "plot_performance_profiles",
    "plot_sensitivity",
    "probability_of_improvement",
    "rank",
    "scores",
    "split",
    "without_return",
]
