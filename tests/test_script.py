"""experiments/a2c.py as a user meets it: its own main, real files, real signals."""

import contextlib
import csv
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from rljax import Config, a2c, evaluation
from rljax.loggers import tables
from rljax.runs import checkpoints

SCRIPT = Path(__file__).parents[1] / "experiments" / "a2c.py"
sys.path.insert(0, str(SCRIPT.parent))
SMALL = (
    "--env probes:RewardByAction --total-timesteps 3000 --num-envs 4 --num-steps 4"
    " --hidden-sizes 8 --num-seeds 2 --seed 5 --eval-episodes 6 --learning-rate 0.01"
).split()


CONFIG = Config(
    env="probes:RewardByAction",
    total_timesteps=3000,
    num_envs=4,
    num_steps=4,
    hidden_sizes=(8,),
    learning_rate=0.01,
)


@pytest.fixture(scope="module")
def main():
    import a2c as script  # the experiment, not rljax.a2c

    return script.main


@pytest.fixture(scope="module")
def finished_run(main, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    assert main([*SMALL, "--run-dir", str(run_dir), "--eval-every", "1000", "--quiet"]) == 0
    return run_dir


def test_files_of_a_run(finished_run):
    names = {path.name for path in finished_run.iterdir()}
    files = {"config.json", "metrics.csv", "summary.json", "learning_curve.png", "evaluations.csv"}
    assert names == {*files, "checkpoints", ".lock"}
    record = json.loads((finished_run / "config.json").read_text())
    assert Config(**record["config"]).validate() == CONFIG
    assert record["run"]["num_seeds"] == 2
    assert record["versions"]["jax"] == jax.__version__
    assert record["network"]["torso"] == "MLP"
    assert (finished_run / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_summary_says_what_was_done(finished_run):
    summary = json.loads((finished_run / "summary.json").read_text())
    assert summary["seeds"] == [5, 6]
    assert summary["status"] == "completed"
    assert summary["total_timesteps"] == 3000
    assert summary["env_steps"] == 3008
    assert "3,000 is rounded up to 3,008" in summary["note"]
    final = summary["final_return"]
    assert final["per_seed"] == [1.0, 1.0]  # greedy after learning which action pays
    assert (final["mode"], final["episodes"], final["unfinished"]) == ("greedy", 6, 0)
    assert final["mean"] == final["iqm"] == 1.0
    assert summary["steps_per_second"] > 0


def test_metrics_are_tidy_and_agree_with_the_library(finished_run):
    """One row per seed and log point, and the figures of `chunks` with the same keys."""
    with open(finished_run / "metrics.csv") as file:
        table = list(csv.DictReader(file))
    assert tuple(table[0]) == tables.METRICS
    keys = jax.vmap(jax.random.key)(np.array([5, 6], np.uint32))
    rows = [m for _, m in a2c.chunks(CONFIG, keys) if a2c.is_row(CONFIG, m)]
    assert len(table) == 2 * len(rows)
    for i, metrics in enumerate(rows):
        for j, seed in enumerate((5, 6)):
            row = table[2 * i + j]
            assert int(row["seed"]) == seed
            assert int(row["env_steps"]) == 16 * metrics.updates[j]
            for name in ("episodic_return", "policy_loss", "entropy", "grad_norm"):
                assert np.float32(row[name]) == getattr(metrics, name)[j]


def test_evaluations_during_training(finished_run):
    with open(finished_run / "evaluations.csv") as file:
        table = list(csv.DictReader(file))
    steps = sorted({int(row["env_steps"]) for row in table})
    assert len(steps) == 3
    assert all(0 <= step - due < 64 for step, due in zip(steps, (1000, 2000, 3000)))
    assert {row["episodes"] for row in table} == {"6"}


def test_saved_state_is_the_whole_state(finished_run):
    """About ten checkpoints were saved at rows of metrics; the newest three are there."""
    steps = checkpoints.existing(finished_run)
    assert steps == [2400, 2720, 3008]
    manifest, trees = checkpoints.load(checkpoints.folder(finished_run, 3008))
    assert (manifest["seeds"], manifest["updates"]) == ([5, 6], 188)
    assert trees["state"]["learner/updates"].tolist() == [188, 188]
    assert any(name.startswith("actor/key|") for name in trees["state"])
    assert manifest["best"]["returns"] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--env CartPol-v1", "unknown environment 'CartPol-v1': did you mean CartPole-v1"),
        ("--env nowhere:Env", "'nowhere:Env': No module named 'nowhere'"),
        ("--preset CartPol-v1", "unknown a2c preset 'CartPol-v1': did you mean CartPole-v1 or"),
        ("--num-envs 0", "num_envs = 0: must be at least 1"),
        ("--num-steps -3", "num_steps = -3: must be at least 1"),
        ("--num-seeds 0", "num_seeds = 0: must be at least 1"),
        ("--num-steps 1000", "one rollout must not be longer than total_timesteps = 3000"),
        ("--gamma 1.5", "gamma = 1.5: must be in [0, 1]"),
        ("--learning-rate nan", "learning_rate = nan: must be finite"),
        ("--gama 0.9", "unknown flag '--gama': did you mean --gamma"),
        ("--gamma high", "--gamma: could not convert string to float: 'high'"),
        ("--optimizer adamw", "invalid choice 'adamw' for argument '--optimizer'"),
        ("--env-params speed=2", "unknown environment parameter 'speed'"),
        ("--env probes:Unplayable", "unsupported action space"),
        ("--network mpl", "unknown network 'mpl': did you mean mlp?"),
        ("--resume", "Missing value for argument '--resume"),
        ("--eval-envs 0", "eval_envs = 0: must be at least 1"),
        ("--eval-max-steps 0", "eval_max_steps = 0: must be at least 1"),
        ("--eval-max-steps 4000000000", "eval_max_steps = 4000000000: must be below 2**31"),
        ("--checkpoint-every -1", "checkpoint_every = -1: must be at least 0"),
        ("--keep-checkpoints 0", "keep_checkpoints = 0: must be at least 1"),
    ],
)
def test_bad_input_is_one_line(main, tmp_path, monkeypatch, capsys, flags, expected):
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, *flags.split()]) == 2
    out, err = capsys.readouterr()
    assert expected in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_run_directory_is_not_overwritten(main, finished_run, tmp_path, capsys):
    before = {p: p.read_bytes() for p in finished_run.iterdir() if p.is_file()}
    assert main([*SMALL, "--run-dir", str(finished_run)]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert before == {p: p.read_bytes() for p in finished_run.iterdir() if p.is_file()}
    (tmp_path / "file").write_text("")
    assert main([*SMALL, "--run-dir", str(tmp_path / "file" / "run")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_divergence_stops_the_run(main, tmp_path, capsys):
    run_dir = tmp_path / "run"
    assert main([*SMALL, "--learning-rate", "1e38", "--run-dir", str(run_dir)]) == 1
    out, err = capsys.readouterr()
    assert "seed 5 diverged: gradient or parameters not finite at update" in err
    assert "diverged" in out
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["status"] == "diverged"
    assert set(summary["diverged"]) == {"5", "6"}
    assert summary["final_return"] is None
    assert len(tables.read_metrics(run_dir)["seed"]) >= 2


def test_plain_output_when_it_is_no_terminal(main, tmp_path, capsys):
    assert main([*SMALL, "--run-dir", str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    for text in ("100%", "env steps", "steps/s", "return", "ETA", "IQM", "95% interval", "seed 6"):
        assert text in out
    assert f"run directory: {tmp_path / 'run'}" in out


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_one_seed_has_no_interval(num_seeds, capsys):
    import common
    import display

    played = evaluation.Evaluation(np.ones((num_seeds, 3)), None, np.ones((num_seeds, 3), bool))
    final = common.summarize_returns(played, "greedy", 100)
    assert final["ci95"] == (None if num_seeds == 1 else [1, 1])
    seeds = list(range(num_seeds))
    more = {"env": "It", "checkpoint": "last", "seeds": seeds, "env_steps": seeds}
    display.print_evaluation({**more, **final})
    out = capsys.readouterr().out
    assert "IQM" in out
    assert ("95% interval" in out) == (num_seeds > 1)


def test_a_signal_while_the_end_is_written_loses_nothing(main, tmp_path, monkeypatch):
    """It comes in the middle of the plot; the run is complete and stays so."""
    from rljax import analysis

    draw = analysis.plot_learning_curves
    send = lambda *args: (os.kill(os.getpid(), signal.SIGTERM), draw(*args))  # noqa: E731
    monkeypatch.setattr(analysis, "plot_learning_curves", send)
    assert main([*SMALL, "--run-dir", str(tmp_path / "run"), "--quiet"]) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "completed"
    assert (tmp_path / "run" / "learning_curve.png").exists()


def test_a_signal_during_evaluation_keeps_what_was_trained(main, tmp_path, monkeypatch):
    from rljax import evaluation

    interrupt = lambda *_, **how: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
    monkeypatch.setattr(evaluation, "evaluate", interrupt)
    assert main([*SMALL, "--run-dir", str(tmp_path / "run"), "--quiet"]) == 130
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["env_steps"]) == ("interrupted", 3008)
    assert summary["final_return"] is None
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def test_options_at_their_limits(main, tmp_path, monkeypatch, capsys):
    """One seed, no evaluation, no preset, a prefix, an odd path, in the default directory."""
    flags = "--env gymnax/CartPole-v1 --preset none --num-seeds 1 --eval-episodes 0 --device cpu"
    small = "--total-timesteps 64 --num-envs 4 --num-steps 4 --hidden-sizes 8"
    monkeypatch.chdir(tmp_path)
    for run_dir in ([], [], ["--run-dir", "runs/[odd]"]):
        assert main([*flags.split(), *small.split(), *run_dir]) == 0
    assert "runs/[odd]" in capsys.readouterr().out
    made = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert len(made) == 3
    record = json.loads((tmp_path / "runs" / made[1] / "config.json").read_text())
    assert record["config"]["optimizer"] == "rmsprop_tf"
    assert Path(record["run"]["run_dir"]).name == made[1]


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU here")
def test_no_gpu(main, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "--device", "gpu"]) == 2
    assert "device = 'gpu': there is none here" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_benchmark_measures(tmp_path, capsys):
    import benchmark

    flags = "--envs CartPole-v1 --sizes 2x3 --repeats 1 --seconds 0.01 --no-start"
    flags += f" --json {tmp_path / 'figures.json'}"
    assert benchmark.main(flags.split()) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert [figure["size"] for figure in figures] == ["2x3"]
    assert all(figures[0][f"{name}_steps_per_second"] > 0 for name in benchmark.SPEEDS)
    assert benchmark.main(["--sizes", "2by3"]) == 2
    assert "size '2by3'" in capsys.readouterr().err
    flags = "sweep --rates 2 --seeds 1 --timesteps 1000 --rounds 1 --seconds 0.1 --sizes 1"
    flags += f" --shapes CartPole-v1,2x3 --json {tmp_path / 'sweep.json'}"
    assert benchmark.main(flags.split()) == 0
    figures = json.loads((tmp_path / "sweep.json").read_text())
    assert all(figures["rounds"][0][name] > 0 for name in ("population", "in_turn", "large"))
    assert 0 < figures["files"]["share"] < 1
    assert min(figures["batches"][0]["steps_per_second"].values()) > 0


def test_help_is_quick_and_complete():
    start = time.perf_counter()
    code = "import sys, runpy; sys.argv = ['a2c.py', '--help']\n"
    code += f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    code += "finally: print('jax' in sys.modules, 'flax' in sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=SCRIPT.parent,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parent)},
    )
    assert done.returncode == 0
    assert done.stderr.strip() == "False False"
    for name in [*Config.__dataclass_fields__, "preset", "seed", "num_seeds", "run_dir", "quiet"]:
        assert f"--{name.replace('_', '-')}" in done.stdout
    assert time.perf_counter() - start < 10  # a hang, not a benchmark


def test_ctrl_c_ends_a_run_in_order(tmp_path):
    """A process of its own; SIGTERM is sent in tests/test_resume.py."""
    run_dir = tmp_path / "run"
    flags = [*SMALL, "--total-timesteps", "10000000", "--run-dir", str(run_dir)]
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *flags],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_rows(run_dir, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == ""
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert summary["updates"] > 0
    _, trees, _ = checkpoints.newest(run_dir)
    assert trees["state"]["learner/updates"].tolist() == [summary["updates"]] * 2
    assert "interrupted" in out


def wait_for_rows(run_dir, process):
    metrics = run_dir / "metrics.csv"
    while not (metrics.exists() and metrics.read_text().count("\n") > 1):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.slow
def test_the_main_job(tmp_path):
    """The README's command on a terminal: the live display, and every one of 8 seeds solved."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, str(SCRIPT)], cwd=tmp_path, stdout=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal says that the other side is closed
        while piece := os.read(ours, 65536):
            shown += piece
    assert process.wait() == 0
    for text in ("training", "━", "env steps", "steps/s", "return", "ETA", "IQM", "seed 7"):
        assert text in shown.decode()
    (run_dir,) = (tmp_path / "runs").iterdir()
    summary = json.loads((run_dir / "summary.json").read_text())
    assert len(summary["seeds"]) == 8
    assert min(summary["final_return"]["per_seed"]) >= 475
