"""Suites of environments: their runs, table and figure."""

import dataclasses
import json

import pytest
from scripts import script

from rljax import algorithms, presets
from rljax.cli import suite
from rljax.runs import directory, training
from rljax.runs import settings as run_settings
from rljax.runs.run import read_summary

ENVS = ("probes:RewardByAction", "probes:ConstantReward")


@pytest.fixture
def default(tmp_path, monkeypatch):
    small = dict(
        total_timesteps=640, num_envs=4, num_steps=4, hidden_sizes=(8,), learning_rate=1e-2
    )
    for env in ENVS:
        monkeypatch.setitem(presets.PRESETS, ("a2c", env), small)
    return tmp_path / "probes"


def run(folder, *argv, tasks=ENVS, **how):
    return suite.main("a2c", "A suite.", tasks, 2, str(folder), ["--quiet", *argv], **how)


@pytest.mark.slow
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
    for name in (
        "classic_control",
        "minatar",
        "gymnasium_envs",
        "a3c_classic_control",
        "dqn_classic_control",
        "mujoco_envs",
    ):
        for env in script(name).ENVS:
            algorithm = name[:3] if name.startswith(("a3c", "dqn")) else "a2c"
            presets.preset(algorithm, env).validate()
    for name in ("jax_suites", "atari", "a3c_atari"):
        algorithm = "a3c" if name.startswith("a3c") else "a2c"
        tasks = suite.Suite(algorithm, script(name).TASKS, {"": {}})
        for task in tasks.tasks:
            suite.started(tasks, task, "").config.validate()


def test_a_run_of_workers_with_several_environments_is_known_again(tmp_path):
    """Its config has those of each worker, which the task says otherwise."""
    task = {"env": "CartPole-v1", "num_workers": 2, "envs_per_worker": 3}
    told = suite.Suite("a3c", {"pole": task}, {"": {}})
    options = suite.Options(("pole",), 1, tmp_path, seed=100)
    asked, is_resumed = suite._asked(told, options, "pole", "")
    assert not is_resumed
    config = algorithms.settle(asked.config, asked.own)
    record = run_settings.record(asked._replace(config=config))
    directory.create(tmp_path / "pole", record, "metrics.csv")
    _, is_resumed = suite._asked(told, options, "pole", "")
    assert is_resumed
    other = suite.Suite("a3c", {"pole": {**task, "envs_per_worker": 4}}, {"": {}})
    with pytest.raises(ValueError, match="it has num_envs = 3, not 4"):
        suite._asked(other, options, "pole", "")


def test_the_tasks_for_a_memory_have_presets_with_a_core():
    memory = script("memory")
    tasks = suite.Suite("a2c", memory.TASKS, memory.VARIANTS)
    for task in memory.TASKS:
        recurrent, without = (suite.started(tasks, task, x).config for x in memory.VARIANTS)
        assert recurrent.validate().core != "none"
        assert without.validate() == dataclasses.replace(recurrent, core="none", core_inputs=())
    made = suite.started(tasks, "TMaze-100", "recurrent").config
    assert (made.env, made.env_params) == ("TMaze", (("corridor", 100),))
    made = suite.started(tasks, "PendulumNoVel-v1", "recurrent").config
    assert (made.env, made.wrappers) == ("Pendulum-v1", ("mask_velocity",))


@pytest.mark.slow
def test_variants_stand_side_by_side(default, tmp_path, capsys):
    tasks = {"short": {"env": ENVS[0]}, "long": {"preset": ENVS[0], "total_timesteps": 960}}
    variants = {"lambda 1": {}, "lambda 0": {"gae_lambda": 0.0}}
    assert run(default, tasks=tasks, variants=variants) == 0
    folders = ["short", "short-lambda 0", "long", "long-lambda 0"]
    assert sorted(path.name for path in default.iterdir() if path.is_dir()) == sorted(folders)
    records = [directory.read_record(default / name)["config"] for name in folders]
    assert [record["gae_lambda"] for record in records] == [1.0, 0.0, 1.0, 0.0]
    assert [record["total_timesteps"] for record in records] == [640, 640, 960, 960]
    finals = [read_summary(default / name)["final_return"] for name in folders]
    iqms = [suite._number(final["iqm"]) for final in finals]
    head, _, short, long, *_ = (default / "table.md").read_text().splitlines()
    assert head.split(" | ")[2:7] == [
        *("IQM", "95% interval", "lowest seed", "lambda 0: IQM", "95% interval")
    ]
    for row, (first, second) in ((short, iqms[:2]), (long, iqms[2:])):
        assert (row.split(" | ")[2], row.split(" | ")[5]) == (first, second)
    [line] = (default / "results.jsonl").read_text().splitlines()
    assert [*json.loads(line)["runs"]] == folders
    assert run(default, "--envs", "lnog", tasks=tasks) == 2
    assert "did you mean long" in capsys.readouterr().err


@pytest.mark.slow
def test_the_script_of_suites_in_jax(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pgx")
    small = dict(total_timesteps=240, num_envs=4, num_steps=4, hidden_sizes=(4,))
    monkeypatch.setitem(presets.PRESETS, ("a2c", "pgx/minatar-freeway"), small)
    how = dict(tasks=script("jax_suites").TASKS)
    assert run(tmp_path, "--envs", "freeway", "--num-seeds", "1", **how) == 0
    _, _, row, *_ = (tmp_path / "table.md").read_text().splitlines()
    assert row.startswith("| freeway | 240 | ")


@pytest.mark.slow
def test_the_script_of_memory_tasks(tmp_path, monkeypatch, capsys):
    small = dict(total_timesteps=240, num_envs=4, num_steps=4, hidden_sizes=(4,), core_size=4)
    monkeypatch.setitem(presets.PRESETS, ("a2c", "MemoryChain-bsuite"), dict(small, core="gru"))
    memory = script("memory")
    how = dict(tasks=memory.TASKS, variants=memory.VARIANTS)
    assert run(tmp_path, "--envs", "MemoryChain-10", "--num-seeds", "1", **how) == 0
    head, _, row, *_ = (tmp_path / "table.md").read_text().splitlines()
    assert "| feed-forward: IQM |" in head
    assert row.startswith("| MemoryChain-10 | 240 | ")


def test_numbers_and_modes_in_the_table():
    final = {"ci95": [-1.234, 1234.56], "iqm": 9.876, "per_seed": [1.0, 20.04], "mode": "sampled"}
    run = {"final_return": final, "env_steps": 1000, "seeds": [0, 1], "wall_seconds": 59.6}
    assert suite.table({"Env": {"": run}}).splitlines()[2] == (
        "| Env (sampled) | 1,000 | 9.88 | -1.23 … 1234.6 | 1.00 | 2 | 60 |"
    )


def test_one_seed_has_no_interval_in_the_table():
    """Nor had it one in summaries that gave it a width of 0."""
    for ends in (None, [3.0, 3.0]):
        final = {"ci95": ends, "iqm": 3.0, "per_seed": [3.0], "mode": "greedy"}
        run = {"final_return": final, "env_steps": 1000, "seeds": [0], "wall_seconds": 59.6}
        row = suite.table({"Env": {"": run}}).splitlines()[2]
        assert row == "| Env | 1,000 | 3.00 | - | 3.00 | 1 | 60 |"


def test_a_return_that_is_no_number_is_the_lowest_in_the_table():
    final = {"ci95": ["nan", "nan"], "iqm": "nan", "per_seed": [3.0, "nan"], "mode": "greedy"}
    run = {"final_return": final, "env_steps": 1000, "seeds": [0, 1], "wall_seconds": 59.6}
    row = suite.table({"Env": {"": run}}).splitlines()[2]
    assert row == "| Env | 1,000 | nan | nan … nan | nan | 2 | 60 |"


@pytest.mark.parametrize("text", ["[]", "{}", '{"status": "completed"}', "[" * 9999, "{huge}"])
def test_a_summary_that_is_damaged_is_written_again(tmp_path, text):
    final = '{"ci95": [1, 1], "iqm": 1%s, "per_seed": [1], "mode": "greedy"}' % ("0" * 400)
    huge = (
        '{"status": "completed", "seeds": [0], "env_steps": 1, "wall_seconds": 1, "final_return": '
    )
    (tmp_path / "summary.json").write_text(text.replace("{huge}", huge + final + "}"))
    assert suite._summary(tmp_path) == {}
