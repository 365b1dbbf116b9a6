"""The search script: flags into a search, bad input in a line, resume."""

import json

import pytest

from rljax.cli import tune
from rljax.search.axes import When
from rljax.sweep.points import Range

DOC = "Searches."
SMALL = ["--env", "probes:RewardByAction", "--total-timesteps", "320", "--num-envs", "4"]
SMALL += ["--num-steps", "4", "--hidden-sizes", "8", "--num-seeds", "3", "--rungs", "2"]
SMALL += ["--fresh-seeds", "3", "--eval-episodes", "2", "--max-parallel", "4"]
AXIS = ["--axis", "learning_rate=log:1e-3:1e-1"]


def main(*flags):
    return tune.main(DOC, [*map(str, flags)])


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    path = tmp_path_factory.mktemp("tune") / "search"
    assert main(*SMALL, *AXIS, "--budget", "12k", "--run-dir", path) == 0
    return path


def test_what_it_leaves_and_prints(searched, capsys):
    summary = json.loads((searched / "search.json").read_text())
    assert summary["status"] == "completed"
    assert summary["env_steps"] <= 12_000
    names = {path.name for path in searched.iterdir()}
    assert {"config.json", "results.csv", "search.jsonl", "preset.txt", "fresh"} <= names
    assert "sensitivity_learning_rate.png" in names
    assert main("--resume", searched) == 0
    assert "is complete: there is nothing left to do" in capsys.readouterr().out


def test_it_is_repeated_in_words(tmp_path, capsys):
    """On a terminal of 80 columns no table is wider."""
    assert main(*SMALL, *AXIS, "--budget", "8k", "--run-dir", tmp_path / "run") == 0
    out = capsys.readouterr().out
    for words in ("on 3 fresh seeds", "winner", "optimism", "95% interval of", '("a2c", "probes:'):
        assert words in out
    table = [line for line in out.splitlines() if line.startswith(("│", "┃"))]
    assert table
    assert max(map(len, table)) <= 80


def test_flags_of_axes_and_environments():
    flags = ["--env", "CartPole-v1", "Acrobot-v1", "--budget", "50M", "--axis", "core=none,lstm"]
    flags += ["--axis", "core_size=32,64 if core=lstm", "--axis", "gamma=linear:0.9:0.99"]
    asked = tune.parse(DOC, [*flags, "--run-dir", "nowhere"])
    assert asked.envs == ["CartPole-v1", "Acrobot-v1"]
    assert asked.search.steps == 50_000_000
    assert asked.axes["core_size"].condition == ("core", ("lstm",))
    assert asked.axes["gamma"].values == Range(0.9, 0.99, False)
    assert tune._axes(["core_size=3 if core=gru"])["core_size"] == When([3], "core", ["gru"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([*SMALL, *AXIS, "--budget", "100"], "budget = 100: must be at least"),
        ([*SMALL, *AXIS], "budget = 0: must be at least"),
        ([*SMALL, "--budget", "1M"], "axis: must be given at least once"),
        ([*SMALL, "--budget", "1M", "--axis", "gama=0.9,1"], "did you mean gamma"),
        ([*SMALL, "--budget", "1M", "--axis", "gamma=log:0:1"], "must be 0 < LOW <= HIGH"),
        ([*SMALL, "--budget", "1M", "--axis", "gamma=0.9,2"], "gamma"),
        ([*SMALL, *AXIS, "--budget", "1M", "--objective", "finall"], "finall"),
        ([*SMALL, *AXIS, "--budget", "1M", "--sampler", "tpf"], "did you mean tpe"),
        ([*SMALL, *AXIS, "--budget", "1M", "--storage", "x.db"], "is of Optuna's samplers"),
        ([*SMALL, *AXIS, "--budget", "many"], "budget = many: must be a number"),
        ([*SMALL, *AXIS, "--budget", "1M", "--bugdet", "2M"], "did you mean --budget"),
        (["--resume", "nowhere"], "is no directory"),
    ],
)
def test_bad_input_is_a_line(flags, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(*flags) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_on_resume_nothing_else_may_change(searched, capsys):
    for flags in (["--budget", "13k"], ["--num-steps", "5"], AXIS, ["--env", "a", "b"]):
        assert main("--resume", searched, *flags) == 2
        assert "on resume only --max-parallel" in capsys.readouterr().err
