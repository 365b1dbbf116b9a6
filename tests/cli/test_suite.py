"""Suites of environments: their runs, table and figure."""

import importlib.util
import json
from pathlib import Path

import pytest

from rljax import presets
from rljax.cli import suite
from rljax.runs import training

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

ENVS = ("probes:RewardByAction", "probes:ConstantReward")


@pytest.fixture
def default(tmp_path, monkeypatch):
    small = dict(
        total_timesteps=640, num_envs=4, num_steps=4, hidden_sizes=(8,), learning_rate=1e-2
    )
    for env in ENVS:
        monkeypatch.setitem(presets.PRESETS, ("a2c", env), small)
    return tmp_path / "probes"


def run(folder, *argv):
    return suite.main("a2c", "A suite.", ENVS, 2, str(folder), ["--quiet", *argv])


def test_a_suite_trains_publishes_and_goes_on(default, tmp_path, capsys, monkeypatch):
    readme = tmp_path / "README.md"
    readme.write_text("Above\n<!-- probes: begin -->\nold\n<!-- probes: end -->\nBelow\n")
    assert run(default, "--readme", str(readme), "--figure", str(tmp_path / "figure.png")) == 0
    table = (default / "table.md").read_text()
    assert table in capsys.readouterr().out
    text = readme.read_text()
    assert text.startswith("Above\n<!-- probes: begin -->\n| environment | steps | IQM")
    assert text.endswith("<!-- probes: end -->\nBelow\n")
    assert table in text
    assert "old" not in text
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    for env in ENVS:
        summary = json.loads((default / env / "summary.json").read_bytes())
        assert summary["seeds"] == [100, 101]
        row = next(line for line in table.splitlines() if line.startswith(f"| {env} |"))
        assert f"| {suite._number(summary['final_return']['iqm'])} |" in row
        assert f"| {summary['env_steps']:,} |" in row

    [line] = (default / "results.jsonl").read_text().splitlines()
    line = json.loads(line)
    assert line["runs"][ENVS[0]]["seeds"] == [100, 101]
    assert {"versions", "git_commit", "processor", "command_line"} < set(line)

    # What is complete is not trained again; what was interrupted is resumed.
    trained, execute = [], training.execute

    def note(asked, resume):
        trained.append((asked.config.env, resume))
        return execute(asked, resume=resume)

    monkeypatch.setattr(training, "execute", note)
    assert run(default) == 0
    assert trained == []
    (default / ENVS[1] / "summary.json").unlink()
    assert run(default) == 0
    assert trained == [(ENVS[1], True)]

    # One that fails does not keep the others from their turn, one that is interrupted does.
    for status, exit_status, number in (("failed", 1, 2), ("interrupted", 130, 1)):
        trained.clear()
        ended = type("Run", (), {"summary": {}, "error": None, "exit_status": exit_status})
        ended.status = status
        monkeypatch.setattr(
            training, "execute", lambda asked, resume, run=ended: trained.append(asked) or run
        )
        for env in ENVS:
            (default / env / "summary.json").unlink(missing_ok=True)
        assert run(default) == exit_status
        assert len(trained) == number

    # A run of other settings is not taken for this one.
    assert run(default, "--num-seeds", "3") == 2
    assert "num_seeds = 2, not 3" in capsys.readouterr().err
    other = {**presets.PRESETS["a2c", ENVS[0]], "learning_rate": 0.5}
    monkeypatch.setitem(presets.PRESETS, ("a2c", ENVS[0]), other)
    assert run(default) == 2
    assert "learning_rate = 0.01, not 0.5" in capsys.readouterr().err
    longer = {**presets.PRESETS["a2c", ENVS[0]], "total_timesteps": 700, "learning_rate": 0.01}
    monkeypatch.setitem(presets.PRESETS, ("a2c", ENVS[0]), longer)
    assert run(default) == 2
    assert "steps = 640, not 700" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--envs", "probes:ConstantRevard"], "did you mean probes:ConstantReward or"),
        (["--readme", "nowhere.md"], "must hold <!-- probes: begin -->"),
        (["--readme", "x.md", "--envs", ENVS[0]], "leave --envs out"),
        (["--envs"], "must name at least one environment"),
    ],
)
def test_bad_input(default, argv, message, capsys):
    assert run(default, *argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not default.exists()


def test_the_suites_have_presets():
    for name in ("classic_control", "minatar", "gymnasium_envs", "a3c_classic_control"):
        spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        for env in script.ENVS:
            presets.preset(name[:3] if name.startswith("a3c") else "a2c", env).validate()


def test_numbers_and_modes_in_the_table():
    final = {"ci95": [-1.234, 1234.56], "iqm": 9.876, "per_seed": [1.0, 20.04], "mode": "sampled"}
    run = {"final_return": final, "env_steps": 1000, "seeds": [0, 1], "wall_seconds": 59.6}
    assert suite.table({"Env": run}).splitlines()[2] == (
        "| Env (sampled) | 1,000 | 9.88 | -1.23 … 1234.6 | 1.00 | 2 | 60 |"
    )


def test_one_seed_has_no_interval_in_the_table():
    """Nor had it one in summaries that gave it a width of 0."""
    for ends in (None, [3.0, 3.0]):
        final = {"ci95": ends, "iqm": 3.0, "per_seed": [3.0], "mode": "greedy"}
        run = {"final_return": final, "env_steps": 1000, "seeds": [0], "wall_seconds": 59.6}
        row = suite.table({"Env": run}).splitlines()[2]
        assert row == "| Env | 1,000 | 3.00 | - | 3.00 | 1 | 60 |"


def test_a_return_that_is_no_number_is_the_lowest_in_the_table():
    final = {"ci95": ["nan", "nan"], "iqm": "nan", "per_seed": [3.0, "nan"], "mode": "greedy"}
    run = {"final_return": final, "env_steps": 1000, "seeds": [0, 1], "wall_seconds": 59.6}
    row = suite.table({"Env": run}).splitlines()[2]
    assert row == "| Env | 1,000 | nan | nan … nan | nan | 2 | 60 |"


@pytest.mark.parametrize("text", ["[]", "{}", '{"status": "completed"}', "[" * 9999, "{huge}"])
def test_a_summary_that_is_damaged_is_written_again(tmp_path, text):
    final = '{"ci95": [1, 1], "iqm": 1%s, "per_seed": [1], "mode": "greedy"}' % ("0" * 400)
    huge = (
        '{"status": "completed", "seeds": [0], "env_steps": 1, "wall_seconds": 1, "final_return": '
    )
    (tmp_path / "summary.json").write_text(text.replace("{huge}", huge + final + "}"))
    assert suite._summary(tmp_path) == {}
