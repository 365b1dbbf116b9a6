"""The search for presets: its points, its figures, what it refuses."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))
import tune

SMALL = (
    "--env probes:RewardByAction --total-timesteps 3000 --num-envs 4 --num-steps 4"
    " --hidden-sizes 8 --points 3 --num-seeds 2 --eval-episodes 4"
).split()


def test_points_are_drawn_from_the_axes():
    axes = dict(map(tune.parse_axis, ("learning_rate=log:1e-4:1e-1", "ent_coef=0,0.5")))
    points = tune.draw(axes, 2000, seed=0)
    assert points == tune.draw(axes, 2000, seed=0) != tune.draw(axes, 2000, seed=1)
    rates = np.log10([point["learning_rate"] for point in points])
    assert rates.min() > -4
    assert rates.max() < -1
    assert abs(rates.mean() + 2.5) < 0.1  # uniform in the logarithm
    assert {point["ent_coef"] for point in points} == {0.0, 0.5}


def test_the_best_point_comes_first(tmp_path, capsys):
    """A learning rate of nearly nothing leaves the policy as it began; 0.05 solves the probe."""
    axis = ["--axis", "learning_rate=1e-9,0.05", "--json", str(tmp_path / "points.jsonl")]
    assert tune.main([*SMALL, *axis]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "learning_rate" in line]
    assert len(rows) == 3
    assert "learning_rate=0.05" in rows[0]
    points = [json.loads(line) for line in (tmp_path / "points.jsonl").read_text().splitlines()]
    assert [len(point["returns"]) for point in points] == [2, 2, 2]
    scores = {point["config"]["learning_rate"]: np.mean(point["returns"]) for point in points}
    assert scores[0.05] > 0.9
    assert float(rows[0].split()[0]) == pytest.approx(scores[0.05], abs=0.01)


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("lerning_rate=0.1", "did you mean learning_rate?"),
        ("num_envs=1,2", "unknown float setting 'num_envs'"),
        ("learning_rate=log:1", "must be log:LOW:HIGH with"),
        ("learning_rate=fast", "must be log:LOW:HIGH with"),
        ("learning_rate=log:0:1", "with 0 < LOW <= HIGH"),
        ("gamma=1.5", "gamma = 1.5: must be in [0, 1]"),
    ],
)
def test_bad_axes(axis, message, capsys):
    assert tune.main([*SMALL, "--axis", axis]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
