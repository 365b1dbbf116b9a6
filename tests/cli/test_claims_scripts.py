"""What the scripts of claims share."""

import json
import os

import numpy as np
import pandas as pd
import pytest

from rljax.cli import claims, claims_page
from rljax.config import Config

BASE = Config(env="probes:RewardByAction", total_timesteps=320, num_envs=4, num_steps=4)


def test_a_crossing_is_between_two_places():
    assert claims.crossing([0, 1, 2], [1.0, 0.8, 0.4], 0.6) == pytest.approx(1.5)
    assert claims.crossing([0, 1, 2], [1.0, 0.8, 0.7], 0.6) == 2
    assert claims.crossing([0, 1, 2], [0.5, 0.4, 0.3], 0.6) == 0
    assert claims.crossing([0, 1, 2, 3], [1.0, 0.5, 0.7, 0.5], 0.6) == pytest.approx(2.5)


def test_the_interval_of_a_statistic_of_all_cells():
    scores = np.random.default_rng(0).normal(3, 1, (4, 2, 400))
    value, low, high = claims.resampled(np.mean, scores)
    assert value == scores.mean()
    assert low < value < high
    # Seeds are resampled for all cells together: 400 means of 8, not 3,200 numbers.
    error = scores.mean(axis=(0, 1)).std() / np.sqrt(400)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_steps_to_a_target_of_each_seed():
    table = pd.DataFrame(
        {
            "trial": [1, 1, 1, 2, 2, 2],
            "env_steps": [10, 20, 30] * 2,
            "episodic_return": [1.0, 4.0, 3.0, np.nan, 1.0, 2.0],
        }
    )
    assert claims.steps_to(table, 3.5).tolist() == [20, 33]
    assert claims.steps_to(table, 2.0).tolist() == [20, 30]


@pytest.mark.slow
def test_a_lab_tunes_with_seeds_of_its_own_and_trains_once(tmp_path, capsys):
    lab = claims.Lab(tmp_path / "claim", quick=True)
    axes = {"learning_rate": [1e-4, 1e-3, 1e-2]}

    def score(table):
        return -abs(np.log10(table.groupby("trial")["learning_rate"].first()) + 3)

    best, table = lab.tuned("side", BASE, axes, score=score)
    assert best == {"learning_rate": 1e-3}
    assert set(table["seed"]) == {claims.FRESH, claims.FRESH + 1}
    assert set(table["learning_rate"]) == {1e-3}
    tried = pd.read_csv(tmp_path / "claim" / "side_tuning" / "results.csv")
    assert set(tried["seed"]) == {0, 1}
    assert set(tried["learning_rate"]) == {1e-4, 1e-3, 1e-2}
    assert "claim: side_tuning: 6 trials" in capsys.readouterr().out
    again, same = lab.tuned("side", BASE, axes, score=score)
    assert again == best
    assert same.equals(table)
    assert capsys.readouterr().out == ""  # nothing was trained


def test_tuning_goes_on_at_an_end_of_its_values(tmp_path, monkeypatch):
    asked = {}

    def sweep(self, name, base, axes, num_seeds, **how):
        values = axes["rate"] if isinstance(axes, dict) else [axes[0]["rate"]]
        asked[name] = values
        return np.repeat(values, num_seeds)

    monkeypatch.setattr(claims.Lab, "sweep", sweep)
    lab = claims.Lab(tmp_path, quick=False)
    best, table = lab.tuned("x", BASE, {"rate": [1.0, 2.0]}, score=lambda x: -abs(x - 3.9))
    assert best == {"rate": 4.0}
    assert table.tolist() == [4.0] * 10
    tried = {"x_tuning": [1.0, 2.0], "x_tuning, 4": [4.0], "x_tuning, 8": [8.0]}
    assert asked == {**tried, "x": [4.0]}
    best, _ = lab.tuned("y", BASE, {"rate": [2.0, 1.0]}, score=lambda x: -x)
    assert best == {"rate": 0.125}  # and no farther


@pytest.mark.slow
def test_finals_are_in_the_order_of_points_and_seeds(tmp_path):
    """Also where points are of several programs."""
    lab = claims.Lab(tmp_path, quick=True)
    axes = {"num_steps": [4, 8], "learning_rate": [1e-4, 1e-2]}
    table = lab.sweep("sweep", BASE, axes, num_seeds=2)
    shuffled = pd.concat([table[table["trial"] >= 4], table[table["trial"] < 4]])
    assert claims.finals(shuffled).tolist() == claims.finals(table).tolist()
    each = [claims.finals(table[table["trial"] == trial]).item() for trial in range(8)]
    assert claims.finals(table).tolist() == each


def test_what_is_kept_is_made_once(tmp_path):
    lab = claims.Lab(tmp_path, quick=False)
    assert lab.kept("x", lambda: {"a": np.float32(0.5)}) == {"a": 0.5}
    assert lab.kept("x", lambda: 1 / 0) == {"a": 0.5}


def test_a_new_process_gives_what_it_made():
    assert claims.in_new_process(os.getpid) != os.getpid()


SCRIPT = '''"""One is {claim}.

How it is measured.
"""

import sys

from rljax.cli import claims

HOURS = 0.25


def measure(lab):
    return claims.Found("true", ["It is 1."], {{"one": lab.of(1, 2)}})


def draw(numbers, path):
    path.write_bytes(b"a figure")


if __name__ == "__main__":
    sys.exit(claims.main(__doc__, measure, draw, __file__))
'''


@pytest.mark.slow
def test_all_claims_and_their_page(tmp_path, monkeypatch, capfd):
    folder = tmp_path / "claims"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.py").write_text(SCRIPT.format(claim=name))
    runs = ["--run-dir", str(tmp_path / "runs")]

    def test(*flags):
        return claims_page.main("Tests.", folder, ("one", "two"), "# Claims", [*runs, *flags])

    assert test("--only", "one") == 0
    out = capfd.readouterr().out
    assert "1 claims, about 0.2 hours on two cores" in out
    page = (folder / "README.md").read_text()
    assert page.startswith("# Claims\n")
    assert "## One is one\n\n**true**\n\n- It is 1.\n" in page
    assert "## One is two\n\nNot tested yet: [`two.py`](two.py)." in page
    assert (folder / "figures" / "one.png").read_bytes() == b"a figure"
    assert json.loads((folder / "results" / "one.json").read_text())["numbers"] == {"one": 1}
    assert test() == 0
    assert "one: about" not in capfd.readouterr().out  # it was tested
    assert "Not tested" not in (folder / "README.md").read_text()
    before = (folder / "README.md").read_bytes()
    assert test("--quick") == 0
    assert (folder / "README.md").read_bytes() == before
    quick = json.loads((tmp_path / "runs" / "quick" / "results" / "one.json").read_text())
    assert quick["numbers"] == {"one": 2}
    assert test("--only", "oen") == 2
    assert capfd.readouterr().err == "error: unknown claim 'oen': did you mean one?\n"
