"""The score of bsuite's memory_len, and the sweep that it is of."""

import jax
import numpy as np
import pandas as pd
import pytest
import tiny
from scripts import script

from rljax import presets
from rljax.sweep import points, trials

memory_len = script("memory_len")
SMALL = dict(num_steps=4, hidden_sizes=(4,), core="gru", core_size=4)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, ("a2c", "MemoryChain-bsuite"), SMALL)


def rows(*given):
    """A sweep's table of (core, length, seed, episodes, mean return)."""
    names = ["core", memory_len.LENGTH, "seed", "episodes", "episodic_return"]
    return pd.DataFrame(given, columns=names)


def test_the_score_is_that_of_bsuite():
    """By hand, of its formula: an agent is perfect in p of n episodes; its regret (n - p) is
    divided by 0.5, a random agent's rate, and by n; lengths below 0.75 are solved."""
    found = memory_len.regrets(
        rows(
            ("gru", 1, 0, 60, -1.0),
            ("gru", 1, 0, 0, np.nan),
            ("gru", 1, 0, 40, 1.0),
            ("gru", 5, 0, 8, 0.25),  # 5 of 8, which is 0.75 exactly
            ("gru", 9, 0, 100, 0.26),  # 63 of 100
            ("none", 1, 0, 4, 1.0),
            ("none", 1, 1, 4, 0.0),
        )
    )
    assert found["perfect"].tolist() == [40, 5, 63, 4, 2]
    assert found["regret"].tolist() == pytest.approx([1.2, 0.75, 0.74, 0.0, 1.0])
    assert memory_len.solved(found) == {
        "gru": {1: False, 5: False, 9: True},
        "none": {1: True},  # 0.5, the mean over its seeds
    }
    assert memory_len.table(found).splitlines()[2:] == [
        "| gru | 0.33 | 1 of 3 | 9 |",
        "| none | 1.00 | 1 of 1 | 1 |",
    ]


def test_sums_of_returns_are_exact(tmp_path, small):
    """Of the episodes in a table with six digits: each returns 1 or -1."""
    how = memory_len.asked(memory_len.Options(tmp_path, lengths=(3,), episodes=700))
    config, _ = points.apply(how.base, (), how.points[1])
    _, metrics = tiny.train(config, jax.random.key(3))
    episodes = np.asarray(metrics.episodes)
    means = [float(f"{x:.6g}") for x in np.asarray(metrics.episodic_return)]
    sums = episodes * np.nan_to_num(means)
    assert np.abs(sums - sums.round()).max() < 1e-3
    assert ((sums.round() - episodes) % 2 == 0).all()  # as many ones as there are
    found = memory_len.regrets(rows(*(("none", 3, 3, *row) for row in zip(episodes, means))))
    assert found["episodes"].tolist() == [700]
    assert found["total_return"].tolist() == [round(sums.sum())]


def test_a_length_has_its_episodes_and_each_core_is_a_group(tmp_path, small):
    how = memory_len.asked(memory_len.Options(tmp_path))
    assert [x[memory_len.LENGTH] for x in how.points] == [*memory_len.LENGTHS] * 2
    assert len(memory_len.LENGTHS) == 23
    groups = trials.plan(how.base, how.points, range(5))
    assert [len(group.trials) for group in groups] == [5] * 46
    for group in groups:
        config = group.trials[0].config
        steps = dict(config.env_params)["memory_length"] + 1
        assert config.total_timesteps % config.batch_size == 0
        assert 0 <= 10_000 * steps - config.total_timesteps < config.batch_size
    assert {group.trials[0].config.core for group in groups} == {"gru", "none"}


@pytest.mark.slow
def test_the_program_scores_and_is_resumed(tmp_path, small, capsys):
    argv = ["--lengths", "1", "--episodes", "104", "--num-seeds", "2", "--quiet"]
    argv += ["--run-dir", str(tmp_path / "it")]
    assert memory_len.main(argv) == 0
    text = capsys.readouterr().out
    assert "| gru | " in text
    table = pd.read_csv(tmp_path / "it" / "memory_len.csv")
    assert table["core"].tolist() == ["gru", "gru", "none", "none"]
    assert table["episodes"].tolist() == [104] * 4
    assert (tmp_path / "it" / "memory_len.png").exists()
    (tmp_path / "it" / "memory_len.csv").unlink()
    assert memory_len.main(argv) == 0
    assert capsys.readouterr().out == text
    assert pd.read_csv(tmp_path / "it" / "memory_len.csv").equals(table)
    assert memory_len.main([*argv, "--episodes", "99"]) == 2
    assert "is of other settings than asked for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--lengths", "0", "5"], "lengths = (0, 5): must be one or more from 1 to 998"),
        (["--lengths"], "lengths = (): must be one or more from 1 to 998"),
        (["--episodes", "0"], "episodes = 0: must be at least 1"),
    ],
)
def test_bad_input(tmp_path, argv, message, capsys):
    assert memory_len.main([*argv, "--run-dir", str(tmp_path / "it")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "it").exists()
