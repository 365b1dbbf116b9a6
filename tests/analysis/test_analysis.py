"""Statistics over seeds, tidy tables, and the plots."""

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from scipy import stats

from rljax import analysis

NAN = float("nan")


def table(*rows):
    """Columns of metrics.csv from (seed, env_steps, episodic_return)."""
    columns = np.array(rows, float).reshape(-1, 3).T
    return dict(zip(("seed", "env_steps", "episodic_return"), columns))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 10, 33])
def test_iqm_is_the_mean_without_a_quarter_at_either_end(size):
    values = np.random.default_rng(size).normal(size=(size, 3)) ** 3
    expected = stats.trim_mean(values, 0.25, axis=0)
    np.testing.assert_allclose(analysis.iqm(values, axis=0), expected)
    np.testing.assert_allclose(analysis.iqm(values.T), expected)


def test_iqm_does_not_take_nan_for_the_highest():
    values = np.array([[1.0, 2, 3, 4], [1, 2, 3, np.nan], [np.nan, 2, 3, 4]])
    np.testing.assert_array_equal(analysis.iqm(values), [2.5, np.nan, np.nan])
    np.testing.assert_array_equal(analysis.iqm(values.T, axis=0), [2.5, np.nan, np.nan])
    assert np.isnan(analysis.iqm(values, axis=(0, 1)))


def test_the_interval_holds_the_statistic_and_shrinks_with_more_seeds():
    rng = np.random.default_rng(0)
    widths = []
    for seeds in (5, 50, 500):
        values = rng.normal(3, 1, size=(seeds, 4))
        low, high = analysis.interval(values)
        found = analysis.iqm(values, axis=0)
        assert low.shape == high.shape == (4,)
        assert np.all((low < found) & (found < high))
        widths.append((high - low).mean())
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_the_interval_of_the_mean_is_that_of_the_normal_theory():
    values = np.random.default_rng(1).normal(size=400)
    mean, half = values.mean(), 1.96 * values.std() / np.sqrt(400)
    low, high = analysis.interval(values, statistic=np.mean)
    np.testing.assert_allclose([low, high], [mean - half, mean + half], atol=0.15 * half)


def test_the_interval_is_the_same_every_time():
    values = np.random.default_rng(3).normal(size=9)
    assert analysis.interval(values) == analysis.interval(values)


def test_one_seed_has_no_interval():
    assert np.isnan(analysis.interval(np.array([7.0]))).all()
    low, high = analysis.interval(np.ones((1, 3)))
    np.testing.assert_array_equal([low, high], np.full((2, 3), np.nan))


def test_a_learning_curve_fills_gaps_with_the_last_return():
    metrics = table(
        *[(0, 10, NAN), (1, 10, NAN)],
        *[(0, 20, 1.0), (1, 20, NAN)],  # seed 1 has no return yet: the row is left out
        *[(0, 30, NAN), (1, 30, 5.0)],
        *[(0, 40, 3.0), (1, 40, NAN)],
        *[(0, 50, NAN), (1, 50, NAN)],
    )
    env_steps, returns = analysis.learning_curve(metrics)
    np.testing.assert_array_equal(env_steps, [30, 40, 50])
    np.testing.assert_array_equal(returns, [[1, 3, 3], [5, 5, 5]])


def test_a_learning_curve_sorts_its_rows_by_seed_and_step():
    metrics = table((7, 20, 4.0), (3, 10, 1.0), (7, 10, 2.0), (3, 20, 3.0))
    env_steps, returns = analysis.learning_curve(metrics)
    np.testing.assert_array_equal(env_steps, [10, 20])
    np.testing.assert_array_equal(returns, [[1, 3], [2, 4]])


def test_a_seed_that_never_ends_an_episode_hides_no_other():
    metrics = table(
        *[(0, 10, NAN), (3, 10, 1.0), (5, 10, NAN)],
        *[(0, 20, NAN), (3, 20, 2.0), (5, 20, 4.0)],
        *[(0, 30, NAN), (3, 30, NAN), (5, 30, 6.0)],
    )
    env_steps, returns = analysis.learning_curve(metrics)
    np.testing.assert_array_equal(env_steps, [20, 30])
    np.testing.assert_array_equal(returns, [[2, 2], [4, 6]])
    assert analysis.without_return(metrics) == [0]
    env_steps, returns = analysis.learning_curve(table((0, 10, NAN), (1, 10, NAN)))
    assert (env_steps.shape, returns.shape) == ((0,), (0, 0))


def words(figure):
    """All that is written in a figure, but for its axes."""
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    of_legends = [text for legend in legends if legend for text in legend.get_texts()]
    titles = [legend.get_title().get_text() for legend in legends if legend]
    of_axes = [text.get_text() for axes in figure.axes for text in axes.texts]
    return [*of_axes, *(text.get_text() for text in of_legends), *titles]


NEVER = table((0, 10, NAN), (3, 10, NAN), (0, 20, NAN), (3, 20, NAN))
ONE_OF_THREE = table(
    *((seed, step, NAN if seed == 3 else step) for seed in (1, 3, 4) for step in (1, 2))
)
TWO_OF_THREE = table(
    *((seed, step, step if seed == 3 else NAN) for seed in (1, 3, 4) for step in (1, 2))
)


def test_seeds_of_which_no_episode_ended_are_named(tmp_path):
    figure = analysis.plot_learning_curves({"": ONE_OF_THREE}, "It")
    assert words(figure) == ["2 seeds, no episode ended: seed 3", "IQM and 95% interval"]
    assert len(figure.axes[0].get_lines()) == 4
    np.testing.assert_array_equal(figure.axes[0].get_lines()[-1].get_ydata(), [1, 2])
    figure = analysis.plot_learning_curves({"": TWO_OF_THREE}, "It")
    assert words(figure)[0] == "1 seed, no episode ended: seeds 1, 4"
    assert words(figure)[1] != "IQM and 95% interval"
    assert not figure.axes[0].collections
    figure = analysis.plot_learning_curves({"a": ONE_OF_THREE, "b": NEVER}, "Both")
    assert words(figure)[:2] == ["a, 2 seeds, no episode ended: seed 3", "b, no episode ended"]
    panels = {"a": {"": ONE_OF_THREE}, "b": {"": NEVER}, "c": {"": table()}}
    figure = analysis.plot_grid(panels, tmp_path / "a.png")
    assert words(figure) == ["no episode ended: seed 3", "no episode ended", "no rows of metrics"]
    agents = {**ONE_OF_THREE, "trial": np.repeat(np.arange(30, 39), 2)[:6]}
    assert words(analysis.plot_learning_curves({"": agents}, "It"))[0].endswith("ended: trial 31")


def test_a_grid_shows_several_runs_in_a_panel_with_one_legend():
    panels = {"It": {"a": table((0, 10, 1.0), (0, 20, 2.0)), "b": ONE_OF_THREE}}
    panels["That"] = dict.fromkeys("ab", table((0, 10, 1.0), (0, 20, 2.0)))
    figure = analysis.plot_grid(panels)
    assert words(figure) == ["b: no episode ended: seed 3", "a", "b", ""]
    assert [len(axes.get_lines()) for axes in figure.axes] == [2, 2]


def test_a_figure_of_no_return_says_so():
    for curves in ({"": NEVER}, {"a": NEVER, "b": NEVER}):
        figure = analysis.plot_learning_curves(curves, "It")
        assert words(figure)[0] == "no episode ended"
        assert list(figure.axes[0].get_xticks()) == list(figure.axes[0].get_yticks()) == []
    assert words(analysis.plot_learning_curves({"": table()}, "It")) == ["no rows of metrics"]


def test_one_seed_is_drawn_without_a_band():
    one = table((0, 10, 1.0), (0, 20, 2.0))
    figure = analysis.plot_learning_curves({"": one}, "It")
    assert not figure.axes[0].collections
    assert words(figure)[0] == "1 seed"
    assert "interval" not in analysis.plot_grid({"It": {"": one}}).get_supxlabel()
    ranking = analysis.rank(sweep_table()[sweep_table()["seed"] == 0])
    assert ranking["point"].tolist() == [3, 2, 1, 0]
    assert ranking[["low", "high"]].isna().all(axis=None)
    analysis.plot_sensitivity(sweep_table()[sweep_table()["seed"] == 0], "num_steps")


def test_a_curve_of_one_row_is_seen():
    (_, _, curve) = (
        analysis.plot_learning_curves(
            {"": table((0, 10, NAN), (1, 10, 1.0), (0, 20, 3.0), (1, 20, NAN))}, "It"
        )
        .axes[0]
        .get_lines()
    )
    assert (curve.get_xdata().tolist(), curve.get_ydata().tolist()) == ([20], [2])
    assert curve.get_marker() == "o"


def test_a_dollar_begins_no_formula(tmp_path):
    figure = analysis.plot_learning_curves(
        {"map = $a^": ONE_OF_THREE, "map = b$^_": ONE_OF_THREE}, "On $x^", tmp_path / "a.png"
    )
    assert figure.axes[0].get_title() == r"On \$x^"


@pytest.mark.parametrize(
    "metrics",
    [
        table(*((seed, 1000 * i, i + seed) for seed in range(3) for i in range(1, 5))),
        table((0, 1000, 1.0), (0, 2_000_000, 2.0)),
        table((0, 10, NAN), (0, 20, NAN)),
        table(),
    ],
    ids=["three seeds", "one seed", "no episode ended", "no rows"],
)
def test_the_plot_is_a_picture(metrics, tmp_path):
    path = tmp_path / "curve.png"
    analysis.plot_learning_curves({"": metrics}, "CartPole-v1", path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    picture = matplotlib.image.imread(path)
    assert picture.shape[:2] == (600, 960)
    assert picture[..., :3].std() > 0.01  # something is drawn


# Sweeps


def sweep_table(**changed):
    """Two rates and two numbers of steps, three seeds, two log points each; the higher rate is the
    better."""
    rows = []
    for point, (rate, steps) in enumerate((r, s) for r in (0.001, 0.1) for s in (5, 16)):
        for seed in range(3):
            for row in range(2):
                rows.append(
                    {
                        "trial": 3 * point + seed,
                        "point": point,
                        "seed": seed,
                        "learning_rate": rate,
                        "num_steps": steps,
                        "env_steps": 100 * (row + 1),
                        "episodes": 2,
                        "episodic_return": 10 * point + seed + row,
                        "eval_return": 10 * point + seed + 5 if row else NAN,
                        "diverged": False,
                    }
                )
    return pd.DataFrame(rows).assign(**changed)


def test_final_returns_are_evaluations_or_the_end_of_training():
    table = sweep_table()
    finals = analysis.final_returns(table)
    assert list(finals) == [
        *("trial", "point", "seed", "learning_rate", "num_steps", "final_return", "diverged")
    ]
    assert finals["final_return"].tolist() == [10 * p + s + 5 for p in range(4) for s in range(3)]
    without = analysis.final_returns(table.assign(eval_return=NAN))
    assert without["final_return"].tolist() == [10 * p + s + 1 for p in range(4) for s in range(3)]


def test_the_end_of_training_is_the_last_tenth_of_its_episodes():
    rows = 20
    table = pd.DataFrame(
        {
            "trial": np.repeat([0, 1], rows),
            "point": 0,
            "seed": np.repeat([0, 1], rows),
            "env_steps": np.tile(np.arange(rows), 2),
            "episodes": [*[1] * 18, 3, 1, *[1] * 18, 0, 0],
            "episodic_return": [*[0.0] * 18, 10.0, 2.0, *[0.0] * 18, NAN, NAN],
            "eval_return": NAN,
            "diverged": False,
        }
    )
    finals = analysis.final_returns(table)["final_return"]
    assert finals[0] == (3 * 10 + 2) / 4
    assert np.isnan(finals[1])


def test_points_are_ranked_and_what_diverged_counts_as_the_lowest():
    table = sweep_table()
    ranking = analysis.rank(table)
    assert ranking["point"].tolist() == [3, 2, 1, 0]
    assert ranking["iqm"].tolist() == [36, 26, 16, 6]
    assert (ranking["learning_rate"].tolist(), ranking["seeds"].tolist()) == (
        [0.1, 0.1, 0.001, 0.001],
        [3] * 4,
    )
    assert (ranking["low"] <= ranking["iqm"]).all()
    assert ranking["lowest"].tolist() == [35, 25, 15, 5]
    table.loc[table["trial"].isin([9, 10]), "diverged"] = True
    ranking = analysis.rank(table)
    assert ranking["point"].tolist() == [2, 1, 3, 0]
    assert ranking["diverged"].tolist() == [0, 0, 2, 0]
    assert ranking["iqm"][2] == pytest.approx((5 + 5 + 37) / 3)


def test_scores_are_runs_of_each_environment():
    one = sweep_table(env="Hard")
    other = sweep_table(env="Easy", trial=lambda t: t["trial"] + 100)
    other["eval_return"] = 1000 - 2 * other["eval_return"]
    columns = list(one)
    columns.insert(3, columns.pop(columns.index("env")))
    both = pd.concat([one[columns], other[columns]])
    found = analysis.scores(both, "learning_rate")
    assert list(found) == ["learning_rate = 0.001", "learning_rate = 0.1"]
    assert {x.shape for x in found.values()} == {(6, 2)}
    hard = np.concatenate([x[:, 1] for x in found.values()])
    assert (hard.min(), hard.max()) == (0, 1)
    found = analysis.scores(both, "learning_rate", {"Hard": (0, 10), "Easy": (0, 100)})
    assert found["learning_rate = 0.001"][0].tolist() == [9.9, 0.5]
    with pytest.raises(ValueError, match="did you mean learning_rate"):
        analysis.scores(both, "lerning_rate")
    with pytest.raises(ValueError, match="as many runs of each environment"):
        analysis.scores(both[both["trial"] != 101], "learning_rate")


def test_scores_of_sweeps_that_were_put_together():
    """Agents of both have the same numbers."""
    first, second = (
        sweep_table().assign(algorithm=name, eval_return=lambda t, x=x: t["eval_return"] + x)
        for name, x in (("a2c", 0), ("a3c", 100))
    )
    found = analysis.scores(pd.concat([first, second]), "algorithm")
    assert [x.shape for x in found.values()] == [(12, 1), (12, 1)]
    difference = found["algorithm = a3c"] - found["algorithm = a2c"]
    np.testing.assert_array_equal(difference, 100)
    one = [table[table["trial"] == 0] for table in (first, second)]
    assert len(analysis.final_returns(pd.concat(one))) == 2


def test_where_no_trial_has_a_return_nothing_is_made_up():
    table = sweep_table(diverged=True)
    assert analysis.rank(table)["iqm"].isna().all()
    assert analysis.rank(table)["diverged"].tolist() == [3] * 4
    analysis.plot_sensitivity(table, "learning_rate")
    analysis.plot_heat_map(table, "learning_rate", "num_steps")
    with pytest.raises(ValueError, match="no run of an environment has a final return"):
        analysis.scores(table, "learning_rate")


def test_scores_of_one_environment_keep_their_scale():
    found = analysis.scores(sweep_table(), "num_steps")
    assert found["num_steps = 5"].ravel().tolist() == [5, 6, 7, 25, 26, 27]


def drawn(figure):
    """The axes of a figure, and how many points are in them."""
    axes = figure.axes[0]
    return axes, sum(len(c.get_offsets()) for c in axes.collections if type(c) is PathCollection)


def test_sensitivity_has_every_trial_as_a_point(tmp_path):
    table = sweep_table()
    table.loc[table["trial"] == 4, "diverged"] = True
    paths = tmp_path / "a.png", tmp_path / "a.svg"
    figure = analysis.plot_sensitivity(table, "learning_rate", *paths, title="A2C on it")
    axes, points = drawn(figure)
    assert axes.get_xlabel() == "learning_rate"
    assert axes.get_title() == "A2C on it, 12 trials"
    assert points == 12
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in paths[1].read_bytes()
    figure = analysis.plot_sensitivity(table, "num_steps", by="learning_rate")
    axes, points = drawn(figure)
    assert points == 12
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "learning_rate = 0.001",
        "learning_rate = 0.1",
    ]


@pytest.mark.parametrize(
    ("values", "scale"), [((0.1, 0.2, 0.3, 0.4), "linear"), ((1, 2, 5, 10), "log")]
)
def test_sensitivity_to_a_number_is_logarithmic_from_a_decade_on(values, scale):
    table = sweep_table(learning_rate=np.repeat(values, 6))
    axes, _ = drawn(analysis.plot_sensitivity(table, "learning_rate"))
    assert axes.get_xscale() == scale


def test_sensitivity_draws_infinite_values_too():
    table = sweep_table(max_grad_norm=np.repeat([0.1, 1.0, 10.0, np.inf], 6))
    table.insert(4, "max_grad_norm", table.pop("max_grad_norm"))
    axes, points = drawn(analysis.plot_sensitivity(table, "max_grad_norm"))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.1", "1", "10", "inf"]
    assert points == 12


def test_sensitivity_to_a_name(tmp_path):
    names = np.where(sweep_table()["num_steps"] == 5, "adam", "rmsprop_tf")
    table = sweep_table(num_steps=names).rename(columns={"num_steps": "optimizer"})
    axes, points = drawn(analysis.plot_sensitivity(table, "optimizer", tmp_path / "a.png"))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["adam", "rmsprop_tf"]
    assert points == 12


def test_a_heat_map_has_the_iqm_of_each_cell(tmp_path):
    figure = analysis.plot_heat_map(
        sweep_table(), "learning_rate", "num_steps", tmp_path / "a.png", tmp_path / "a.svg"
    )
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[6, 26], [16, 36]])
    assert [text.get_text() for text in axes.texts] == ["6", "26", "16", "36"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.001", "0.1"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["5", "16"]


def test_performance_profiles_fall_from_all_to_none(tmp_path):
    figure = analysis.plot_performance_profiles(sweep_table(), "learning_rate", tmp_path / "a.png")
    lines = figure.axes[0].get_lines()
    assert len(lines) == 2
    for line in lines:
        share = line.get_ydata()
        assert (share[0], share[-1]) == (1, 0)
        assert (np.diff(share) <= 0).all()
    assert (lines[1].get_ydata() >= lines[0].get_ydata()).all()


def test_learning_curves_of_a_sweep_are_of_its_trials():
    curves = analysis.split(sweep_table(), "learning_rate")
    env_steps, returns = analysis.learning_curve(curves["learning_rate = 0.1"])
    assert env_steps.tolist() == [100, 200]
    assert returns.shape == (6, 2)
    assert returns[:, 0].tolist() == [20, 21, 22, 30, 31, 32]
    figure = analysis.plot_learning_curves(sweep_table(), "Rates", by="learning_rate")
    lines = figure.axes[0].get_lines()
    assert [line.get_label() for line in lines] == [f"{label}, 6 seeds" for label in curves]
    assert [line.get_ydata()[-1] for line in lines] == [7, 27]


def test_too_many_values_for_colours_are_refused():
    table = sweep_table(num_steps=range(24))
    with pytest.raises(ValueError, match="has 12 values, more than 7 colours"):
        analysis.plot_sensitivity(table, "learning_rate", by="num_steps")
    with pytest.raises(ValueError, match="24 values"):
        analysis.plot_learning_curves(table, "Steps", by="num_steps")
    with pytest.raises(ValueError, match="24 values"):
        analysis.plot_performance_profiles(table.assign(trial=range(24)), "num_steps")
