"""Statistics over seeds and tasks, and figures, from tidy tables.

statistics  aggregates, intervals, profiles and comparisons of scores
tidy        learning curves, final returns and rankings from the tables of runs and sweeps
sensitivity which settings matter, and how much a method depends on tuning
figures     plots of them; each function returns the figure, which a notebook shows
style       the one style of all figures
"""

# ruff: noqa: F401

from rljax.analysis.figures import (
    plot_grid,
    plot_heat_map,
    plot_learning_curves,
    plot_performance_profiles,
    plot_sensitivity,
    plot_sensitivity_plane,
)
from rljax.analysis.sensitivity import at_same_length, importance, sensitivities, sensitivity
from rljax.analysis.statistics import (
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
from rljax.analysis.style import COLORS, STYLES
from rljax.analysis.tidy import (
    axes,
    final_returns,
    learning_curve,
    rank,
    scores,
    split,
    without_return,
)
