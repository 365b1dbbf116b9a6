"""The command line of a sweep: real files, real signals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rljax import analysis
from rljax import sweep as library
from rljax.cli import space, training
from rljax.cli import sweep as command_line
from rljax.utils import verified

SCRIPT = Path(__file__).parents[2] / "experiments" / "sweep.py"
EARLIER = Path(__file__).parents[1] / "data" / "earlier_runs"

SMALL = (
    "--env probes:RewardByAction --total-timesteps 1600 --num-envs 4 --hidden-sizes 8 --seed 3"
    " --num-seeds 2 --eval-episodes 4 --max-parallel 4"
).split()
AXES = "--axis learning_rate=1e-9,0.02,0.05 --axis num_steps=4,8".split()


@pytest.fixture(scope="module")
def main():
    return lambda argv: command_line.main("Sweeps.", argv)


@pytest.fixture(scope="module")
def finished(main, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "sweep"
    assert main([*SMALL, *AXES, "--run-dir", str(folder), "--quiet"]) == 0
    return folder


def test_files_of_a_sweep(finished):
    names = {path.name for path in finished.iterdir()}
    figures = ("sensitivity_learning_rate", "sensitivity_num_steps", "heat_map", "learning_curves")
    pictures = {f"{name}.{kind}" for name in figures for kind in ("png", "svg")}
    files = {".lock", "config.json", "results.csv", "finished.jsonl", "sweep.json"}
    assert names == files | pictures
    for name in pictures:
        begin = b"\x89PNG" if name.endswith("png") else b"<?xml"
        assert (finished / name).read_bytes().startswith(begin)
    record = json.loads((finished / "config.json").read_bytes())
    assert record["algorithm"] == "sweep"
    assert record["run"]["axis"] == AXES[1::2]
    assert len(record["points"]) == 6
    assert {network["torso"] for network in record["networks"]} == {"MLP"}


def test_the_summary_ranks_what_the_table_holds(finished):
    """A learning rate of nearly nothing leaves the policy as it began; the others solve the
    probe."""
    summary = json.loads((finished / "sweep.json").read_bytes())
    table = library.read(finished)
    assert summary["status"] == "completed"
    assert summary["seeds"] == [3, 4]
    assert (summary["agents"], summary["agents_finished"], summary["agents_diverged"]) == (
        12,
        12,
        0,
    )
    assert [group["settings"] for group in summary["groups"]] == [
        {"num_steps": 4},
        {"num_steps": 8},
    ]
    assert summary["env_steps"] == 12 * 1600 == table.groupby("trial")["env_steps"].max().sum()
    ranking = summary["ranking"]
    scores = [point["iqm"] for point in ranking]
    assert scores == sorted(scores, reverse=True)
    assert {point["learning_rate"] for point in ranking if point["iqm"] == 1.0} >= {0.02, 0.05}
    assert ranking[0]["iqm"] == summary["best"]["iqm"] == 1.0
    finals = analysis.final_returns(table)
    for point in ranking:
        returns = finals["final_return"][finals["point"] == point["point"]]
        assert point["iqm"] == pytest.approx(returns.mean())


def cut(finished, folder, lines):
    """A sweep as one that was killed after so many batches, in the middle of writing the next."""
    shutil.copytree(finished, folder)
    whole = (folder / "finished.jsonl").read_bytes().splitlines(keepends=True)
    end = json.loads(whole[lines - 1])["bytes"] if lines else 0
    (folder / "finished.jsonl").write_bytes(b"".join(whole[:lines]) + b'{"agents": [')
    table = (folder / "results.csv").read_bytes()
    (folder / "results.csv").write_bytes(table[: end + 1000])
    (folder / "sweep.json").unlink()
    return folder


@pytest.mark.parametrize("lines", [0, 1, 3])
def test_a_killed_sweep_goes_on_to_the_same_table(
    main, finished, tmp_path, lines, capsys, monkeypatch
):
    monkeypatch.setattr("rljax.sweep.report._draw", lambda *_: [])
    folder = cut(finished, tmp_path / "sweep", lines)
    assert main(["--resume", str(folder)]) == 0
    assert (folder / "results.csv").read_bytes() == (finished / "results.csv").read_bytes()
    before, after = (json.loads((f / "sweep.json").read_bytes()) for f in (finished, folder))
    assert after["ranking"] == before["ranking"]
    out = capsys.readouterr().out
    assert "12 of 12 trials" in out
    assert ("from" in out) == (lines > 0)
    assert "best so far 1.00 at" in out


def test_what_is_complete_is_left_as_it_is(main, finished, capsys):
    before = {path: path.read_bytes() for path in sorted(finished.iterdir())}
    assert main(["--resume", str(finished)]) == 0
    assert "is complete: there is nothing left to do" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in sorted(finished.iterdir())} == before


def test_a_sweep_that_was_killed_before_its_figures_is_finished(main, finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "sweep")
    (folder / "sweep.json").unlink()
    (folder / "heat_map.png").unlink()
    assert main(["--resume", str(folder)]) == 0
    assert "12 of 12 trials" in capsys.readouterr().out
    assert len(json.loads((folder / "config.json").read_bytes())["resumed"]) == 1
    before, after = (json.loads((f / "sweep.json").read_bytes()) for f in (finished, folder))
    assert after["ranking"] == before["ranking"]
    assert after["train_seconds"] == pytest.approx(before["train_seconds"], abs=0.002)
    assert (folder / "heat_map.png").exists()


def test_a_refused_resume_writes_nothing(main, finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "sweep")
    (folder / "sweep.json").unlink()
    (folder / "results.csv").write_text("another table\n")
    before = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    assert main(["--resume", str(folder)]) == 2
    assert "results.csv was changed or cut" in capsys.readouterr().err
    (before.pop(folder / ".lock"), (folder / ".lock").unlink())
    assert {path: path.read_bytes() for path in sorted(folder.iterdir())} == before


@pytest.mark.parametrize("header", [("trial,", "\ufefftrial,"), ("learning_rate,", "gamma,")])
def test_a_table_of_other_columns_is_refused(main, finished, tmp_path, capsys, header):
    """Before anything is trained, though its sum is right."""
    folder = cut(finished, tmp_path / "sweep", 1)
    entry = json.loads((folder / "finished.jsonl").read_bytes().splitlines()[0])
    table = (folder / "results.csv").read_bytes()[: entry["bytes"]]
    table = table.decode().replace(*header, 1).encode()
    entry |= verified.mark(table)
    (folder / "results.csv").write_bytes(table)
    (folder / "finished.jsonl").write_text(json.dumps(entry) + "\n")
    assert main(["--resume", str(folder)]) == 2
    assert "results.csv is of other trials than" in capsys.readouterr().err
    assert (folder / "results.csv").read_bytes() == table


def test_a_sweep_of_an_earlier_version_is_read():
    """Its trials were called agents."""
    table = library.read(EARLIER / "after_sweep.csv")
    assert list(table)[:5] == ["trial", "point", "seed", "learning_rate", "env_steps"]
    assert analysis.final_returns(table)["trial"].tolist() == [0, 1, 2, 3]
    assert len(analysis.rank(table)) == 2


@pytest.mark.slow
def test_a_sweep_of_an_earlier_version_is_resumed_to_its_table(main, tmp_path):
    """It was killed while it wrote that the second of two batches was finished. The table keeps the
    columns that it has."""
    folder = shutil.copytree(EARLIER / "sweep", tmp_path / "sweep")
    entry = json.loads((folder / "finished.jsonl").read_bytes().splitlines()[0])
    kept = (folder / "results.csv").read_bytes()[: entry["bytes"]]
    assert main(["--resume", str(folder), "--quiet"]) == 0
    assert (folder / "results.csv").read_bytes().startswith(kept)
    table, after = library.read(folder), library.read(EARLIER / "after_sweep.csv")
    pd.testing.assert_frame_equal(table, after, rtol=2e-3, atol=2e-4)
    summary = json.loads((folder / "sweep.json").read_bytes())
    assert (summary["status"], summary["agents_finished"]) == ("completed", 4)
    assert main(["--resume", str(folder)]) == 0


def test_where_every_trial_diverges_none_is_the_best(main, tmp_path, capsys):
    folder = tmp_path / "sweep"
    axes = ["--axis", "learning_rate=1e36,1e37", "--num-steps", "4"]
    assert main([*SMALL, *axes, "--run-dir", str(folder)]) == 0
    summary = json.loads((folder / "sweep.json").read_bytes())
    assert summary["agents_diverged"] == 4
    assert summary["best"] is None
    assert [point["iqm"] for point in summary["ranking"]] == [None, None]
    assert "2/2" in capsys.readouterr().out


def test_points_are_listed_in_a_file(main, tmp_path, capsys):
    points = [
        {"learning_rate": 0.02, "hidden_sizes": [8]},
        {"learning_rate": 0.05, "hidden_sizes": [8]},
    ]
    (tmp_path / "points.json").write_text(json.dumps(points))
    folder = tmp_path / "sweep"
    asked = [
        "--points",
        str(tmp_path / "points.json"),
        "--num-steps",
        "4",
        "--run-dir",
        str(folder),
    ]
    assert main([*SMALL, *asked]) == 0
    assert set(library.read(folder)["learning_rate"]) == {0.02, 0.05}
    assert "learning_rate" in capsys.readouterr().out
    (tmp_path / "points.json").write_text("[]")  # the sweep has its own
    assert main(["--resume", str(folder), "--quiet"]) == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--axis lerning_rate=0.1", "unknown setting 'lerning_rate': did you mean learning_rate?"),
        ("--axis num_workers=1", "unknown setting 'num_workers'"),
        ("--axis learning_rate", "axis 'learning_rate': must be NAME=VALUE,VALUE"),
        ("--axis learning_rate=", "must have at least one value"),
        ("--axis learning_rate=fast", "'fast' must be a number"),
        ("--axis learning_rate=log:1", "must be NAME=VALUE,VALUE,... or NAME=log:LOW:HIGH:NUMBER"),
        ("--axis learning_rate=log:0:1:4", "must be 0 < LOW <= HIGH"),
        ("--axis learning_rate=log:1e-3:1e-2", "in a grid it needs a number of values"),
        ("--axis learning_rate=log:1e-3:1e-2:0", "0 values: must be a whole number"),
        ("--axis num_steps=2.5", "'2.5' must be a whole number"),
        ("--axis num_steps=1e3", "point 0 (num_steps=1000): num_envs * num_steps = 4000"),
        ("--axis anneal_lr=yes", "'yes' must be true or false"),
        ("--axis optimizer=adma", "did you mean adam?"),
        ("--axis gamma=0.9,1.5", "point 1 (gamma=1.5): gamma = 1.5: must be in [0, 1]"),
        ("--axis network=cnn", "point 0 (network=cnn), seed 3"),
        ("--axis core=none,lstn", "point 1 (core=lstn), seed 3: unknown core 'lstn'"),
        (
            "--core gru --axis core_inputs=none,last_acton",
            "did you mean last_action or last_reward?",
        ),
        (
            "--core-inputs last_action --axis core=none",
            "point 0 (core=none): core_inputs = ",
        ),
        ("--axis env=CartPole-v1,CartPole-v7", "point 1 (env=CartPole-v7), seed 3"),
        ("--axis gamma=0.9 --axis gamma=0.8", "axis gamma: is given twice"),
        ("--axis gamma=0.9 --points x.json", "points: must not be given together with axis"),
        ("", "axis: must be given at least once"),
        ("--points nowhere.json", "cannot be read (No such file or directory)"),
        (
            "--axis gamma=linear:0:1:40 --axis vf_coef=linear:0:1:30",
            "1,200 points: more than --max",
        ),
        (
            "--axis gamma=0.9 --sampling random --num-points 2000",
            "2,000 points: more than --max-po",
        ),
        ("--axis gamma=0.9 --eval-envs 0", "eval_envs = 0: must be at least 1"),
        ("--axis gamma=0.9 --eval-max-steps 0", "eval_max_steps = 0: must be at least 1"),
        ("--axis gamma=0.9 --max-parallel 0", "max_parallel = 0: must be at least 1"),
        ("--axis gamma=0.9 --algorithm a4c", "did you mean"),
        ("--axis gamma=0.9 --num-points 0 --sampling random", "num_points = 0: must be at least 1"),
        ("--axis gamma=0.9 --samplin grid", "samplin"),
        ("--axis num_workers=1 --algorithm a3c --algorithm a2c", "unknown setting 'num_workers'"),
        (
            "--axis gamma=0.9 --algorithm a3c --num-envs 1 --vectorization async",
            "A3C's workers are processes",
        ),
        ("--axis gamma=0.9 --algorithm a3c", "num_envs = 4: A3C has envs_per_worker instead"),
        ("--axis env_params.max_steps_in_episode=abc", "'abc': must be a whole number"),
        ("--axis total_timesteps=1e30", "must be less than 2**31 rollouts"),
        ("--axis gamma=linear:0:1:100000000", "100,000,000 points: must be no more than 1,000"),
        ("--points x.json --sampling random", "must not be given together with sampling"),
    ],
)
def test_bad_input(main, argv, message, tmp_path, capsys):
    folder = tmp_path / "sweep"
    assert main([*SMALL, *argv.split(), "--run-dir", str(folder)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not folder.exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--run-dir {sweep} --axis gamma=0.9", "already holds a run"),
        ("--resume {sweep} --axis gamma=0.9", "the sweep has axis = ("),
        ("--resume {sweep} --num-seeds 3", "the sweep has num_seeds = 2, not 3"),
        ("--resume {sweep} --run-dir elsewhere", "the sweep has run_dir = "),
        ("--resume {sweep} --max-parallel 0", "max_parallel = 0: must be at least 1"),
        ("--resume {sweep} --max-parallel 2 --gamma 0.5", "the sweep has gamma = "),
        ("--resume {sweep} --total-timesteps 3200", "total_timesteps = 1600, not 3200"),
        ("--resume {other}", "is no run directory"),
    ],
)
def test_a_directory_of_another_sweep(main, finished, argv, message, tmp_path, capsys):
    before = {path: path.read_bytes() for path in sorted(finished.iterdir())}
    asked = argv.format(sweep=finished, other=tmp_path).split()
    assert main(asked) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert {path: path.read_bytes() for path in sorted(finished.iterdir())} == before


def test_a_run_is_no_sweep(main, finished, tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"algorithm": "a2c", "config": {}, "run": {}}')
    assert main(["--resume", str(tmp_path)]) == 2
    assert "is a run of a2c, not a sweep" in capsys.readouterr().err
    assert training.main("a2c", "Trains.", ["--resume", str(finished)]) == 2
    assert "is a run of sweep, not of a2c" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("hidden_sizes=64,64x32", [(64,), (64, 32)]),
        ("wrappers=none,mask_velocity", [(), ("mask_velocity",)]),
        ("frame_stack=1,4", [1, 4]),
        ("core=none,lstm,gru", ["none", "lstm", "gru"]),
        ("core_size=8,64", [8, 64]),
        (
            "core_inputs=none,last_action,last_action+last_reward",
            [(), ("last_action",), ("last_action", "last_reward")],
        ),
        ("anneal_lr=true,False", [True, False]),
        ("num_envs=8,1e1", [8, 10]),
        ("max_staleness=none,4", [None, 4]),
        ("env_params.max_steps_in_episode=200", [200]),
        ("env_kwargs.map_name=4x4", ["4x4"]),
        ("env=CartPole-v1,gymnasium/Acrobot-v1", ["CartPole-v1", "gymnasium/Acrobot-v1"]),
        ("optimizer=adam", ["adam"]),
        ("gamma=linear:0:1:3", (0.0, 0.5, 1.0)),
        ("num_steps=log:5:100:4", (5, 14, 37, 100)),
        ("learning_rate=log:1e-4:1e-2", library.Range(1e-4, 1e-2, is_log=True)),
    ],
)
def test_axes_are_read_in_the_type_of_their_setting(text, value):
    assert space.parse(text, 10) == (text.partition("=")[0], value)


def wait_for_lines(path, number):
    for _ in range(1200):
        if path.exists() and path.read_bytes().count(b"\n") >= number:
            return
        time.sleep(0.05)
    raise TimeoutError(path)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_sweep_that_is_stopped_goes_on_to_the_same_table(finished, tmp_path, number, status):
    """As a process of its own."""
    folder = tmp_path / "sweep"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    settings = dict(env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    longer = [*SMALL, *AXES, "--total-timesteps", "160000"]
    command = [sys.executable, str(SCRIPT)]
    undisturbed = subprocess.run(
        [*command, *longer, "--run-dir", str(tmp_path / "whole")], **settings, check=True
    )
    assert "12 of 12 trials" in undisturbed.stdout
    running = subprocess.Popen([*command, *longer, "--run-dir", str(folder)], **settings)
    wait_for_lines(folder / "finished.jsonl", 2)
    running.send_signal(number)
    running.wait(60)
    assert running.returncode == status
    whole = (tmp_path / "whole" / "results.csv").read_bytes()
    assert len((folder / "results.csv").read_bytes()) < len(whole)
    assert subprocess.run([*command, "--resume", str(folder)], **settings).returncode == 0
    assert (folder / "results.csv").read_bytes() == whole


PEAK = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""
"""Runs a command and prints its peak in kilobytes. A child's peak begins at the size of the process
that it was forked from, so that a large one, such as that of the tests, cannot ask itself."""


@pytest.mark.slow
def test_ten_thousand_trials_fit_in_four_gigabytes(tmp_path):
    """10,000 CartPole trials of 10,000 steps each: the peak of the whole process."""
    command = (
        f"{SCRIPT} --env CartPole-v1 --preset none --axis learning_rate=log:1e-4:1e-2:1000"
        f" --num-seeds 10 --total-timesteps 10000 --run-dir {tmp_path / 'sweep'} --quiet"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", PEAK, sys.executable, *command.split()]
    printed = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    assert int(printed.splitlines()[-1]) < 4 * 2**20
    finals = analysis.final_returns(library.read(tmp_path / "sweep"))
    assert len(finals) == 10_000
    assert np.isfinite(finals["final_return"]).all()
