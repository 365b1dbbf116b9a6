"""The command lines of training, evaluation and plots: flags, lines on stderr, exit statuses."""

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import processes_of_tests as processes
import pytest
from small_runs import argv, contents, results, stop_at_update, train_half

from rljax import Config, evaluation, presets
from rljax.cli import evaluation as evaluation_cli
from rljax.cli import plot as plot_cli
from rljax.cli import training as training_cli
from rljax.loggers import tables
from rljax.runs import checkpoints, directory, labels
from rljax.utils import atomic_io

SCRIPT = Path(__file__).parents[2] / "experiments" / "a2c.py"
sys.path.insert(0, str(SCRIPT.parent))
DOC = "Trains.\n\nMore of it."


def main(flags, algorithm="a2c"):
    return training_cli.main(algorithm, DOC, flags)


def evaluate(*flags):
    return evaluation_cli.main(DOC, [*map(str, flags)])


def plot(*flags):
    return plot_cli.main(DOC, [*map(str, flags)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    assert main([*argv(run_dir), "--quiet"]) == 0
    return run_dir


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    return train_half(tmp_path_factory.mktemp("runs") / "stopped")


@pytest.fixture
def stopped(stopped_once, tmp_path):
    return Path(shutil.copytree(stopped_once, tmp_path / "stopped"))


def refused(capsys, status, expected):
    """That the last command failed in one line on stderr."""
    out, err = capsys.readouterr()
    assert expected in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert (status, out) == (2, "")


# Training


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--env CartPol-v1", "unknown environment 'CartPol-v1': did you mean CartPole-v1"),
        ("--env nowhere:Env", "'nowhere:Env': No module named 'nowhere'"),
        ("--preset CartPol-v1", "unknown a2c preset 'CartPol-v1': did you mean CartPole-v1 or"),
        ("--num-envs 0", "num_envs = 0: must be at least 1"),
        ("--num-steps -3", "num_steps = -3: must be at least 1"),
        ("--num-seeds 0", "num_seeds = 0: must be at least 1"),
        ("--num-steps 1000", "one rollout must not be longer than total_timesteps = 3192"),
        ("--gamma 1.5", "gamma = 1.5: must be in [0, 1]"),
        ("--learning-rate nan", "learning_rate = nan: must be finite"),
        ("--gama 0.9", "unknown flag '--gama': did you mean --gamma"),
        ("--num-workers 2", "unknown flag '--num-workers'"),
        ("--gamma high", "--gamma: could not convert string to float: 'high'"),
        ("--optimizer adamw", "invalid choice 'adamw' for argument '--optimizer'"),
        ("--env-params speed=2", "unknown environment parameter 'speed'"),
        ("--env probes:Unplayable", "unsupported action space"),
        ("--network mpl", "unknown network 'mpl': did you mean mlp?"),
        ("--loss actor_critc", "unknown loss 'actor_critc': did you mean actor_critic?"),
        ("--loss nowhere:loss", "'nowhere:loss': No module named 'nowhere'"),
        ("--resume", "Missing value for argument '--resume"),
        ("--resume nowhere", "'nowhere' is no directory"),
        ("--eval-envs 0", "eval_envs = 0: must be at least 1"),
        ("--eval-max-steps 0", "eval_max_steps = 0: must be at least 1"),
        ("--eval-max-steps 4000000000", "eval_max_steps = 4000000000: must be below 2**31"),
        ("--checkpoint-every -1", "checkpoint_every = -1: must be at least 0"),
        ("--keep-checkpoints 0", "keep_checkpoints = 0: must be at least 1"),
        ("--log-interval 0", "log_interval = 0: must be at least 1"),
        ("--stop-at-return inf", "stop_at_return = inf: must be finite"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, flags, expected):
    monkeypatch.chdir(tmp_path)
    refused(capsys, main([*argv("run"), *flags.split()]), expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--num-worker 2", "unknown flag '--num-worker': did you mean --num-workers"),
        ("--num-envs 16", "num_envs = 16: A3C has envs_per_worker instead"),
        ("--device gpu", "device = 'gpu': A3C computes on the CPU"),
    ],
)
def test_bad_input_of_a3c_is_one_line(tmp_path, monkeypatch, capsys, flags, expected):
    monkeypatch.chdir(tmp_path)
    start = ["--env", "CartPole-v1", "--preset", "none"]
    refused(capsys, main([*start, *flags.split()], "a3c"), expected)
    assert list(tmp_path.iterdir()) == []


def test_flags_are_settings(tmp_path):
    """On top of the preset of the environment; of values as Python writes them."""
    flags = "--env CartPole-v1 --gamma 0.5 --hidden-sizes 8 4 --log-interval 7 --stop-at-return -1"
    asked = training_cli.parse("a2c", "Trains.", flags.split())
    preset = presets.preset("a2c", "CartPole-v1")
    assert (asked.config.gamma, asked.config.hidden_sizes) == (0.5, (8, 4))
    assert asked.config.learning_rate == preset.learning_rate
    assert (asked.options.log_interval, asked.options.stop_at_return) == (7, -1)
    assert asked.options.run_dir.name.startswith("CartPole-v1__a2c__0__")
    flags = "--env probes:Configured --env-kwargs size=4 name=x --num-workers 3 --lockstep"
    asked = training_cli.parse("a3c", "Trains.", flags.split())
    assert asked.config.env_kwargs == (("size", 4), ("name", "x"))
    assert (asked.own[0].num_workers, asked.own[0].lockstep) == (3, True)
    assert asked.options.num_seeds == 1
    flags = "--env-kwargs host_probes:by_index --reset-options level=3 --log-info is_success a/b"
    config = training_cli.parse("a2c", "Trains.", flags.split()).config
    assert config.env_kwargs == "host_probes:by_index"
    assert config.reset_options == (("level", 3),)
    assert config.log_info == ("is_success", "a/b")


def test_plain_output_when_it_is_no_terminal(tmp_path, capsys):
    assert main(argv(tmp_path / "run")) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    for text in ("100%", "env steps", "steps/s", "return", "ETA", "IQM", "95% interval", "seed 6"):
        assert text in out
    assert f"run directory: {tmp_path / 'run'}" in out
    assert "--resume" not in out


def test_a_run_of_the_command_line_is_that_of_the_library(finished, tmp_path):
    from small_runs import train

    train(tmp_path / "run")
    assert results(tmp_path / "run") == results(finished)
    assert directory.read_record(finished)["command_line"]


def test_a_run_directory_is_not_overwritten(finished, tmp_path, capsys):
    before = contents(finished)
    refused(capsys, main(argv(finished)), "already holds a run")
    assert contents(finished) == before
    (tmp_path / "file").write_text("")
    refused(capsys, main(argv(tmp_path / "file" / "run")), "cannot be written")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_divergence_ends_the_run_with_status_1(tmp_path, capsys):
    assert main(argv(tmp_path / "run", learning_rate=1e38)) == 1
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert len(lines) == 2  # one for each seed, and no warning beside
    assert lines[0].startswith("error: seed 5 diverged: gradient or parameters not finite at upd")
    assert "diverged" in out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "diverged"
    assert set(summary["diverged"]) == {"5", "6"}
    assert summary["final_return"] is None
    assert len(tables.read_metrics(tmp_path / "run")) >= 2


def test_a_failing_environment_ends_the_run_with_status_1(tmp_path, capsys):
    flags = argv(tmp_path / "run", env="host_probes:AnsweringLate", num_envs=2, eval_every=0)
    assert main([*flags, "--env-kwargs", "what=reward None", "--quiet"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: environment 0 of host_probes:AnsweringLate at step 202:")
    assert err.count("\n") == 1
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"


def test_a_full_disk_is_one_line(tmp_path, monkeypatch, capsys):
    write_folder = atomic_io.write_folder

    def full(path, contents):
        if "1920" in path.name:
            raise atomic_io.WriteError(f"{path} could not be written (No space left on device)")
        write_folder(path, contents)

    monkeypatch.setattr(atomic_io, "write_folder", full)
    assert main([*argv(tmp_path / "run"), "--quiet"]) == 1
    err = capsys.readouterr().err
    assert "No space left on device); resume with --resume from what was saved" in err
    assert err.count("\n") == 1


def test_options_at_their_limits(tmp_path, monkeypatch, capsys):
    """One seed, no evaluation, no preset, a prefix, an odd path, in the default directory."""
    flags = "--env gymnax/CartPole-v1 --preset none --num-seeds 1 --eval-episodes 0 --device cpu"
    small = "--total-timesteps 64 --num-envs 4 --num-steps 4 --hidden-sizes 8"
    monkeypatch.chdir(tmp_path)
    for run_dir in ([], [], ["--run-dir", "runs/[odd]"]):
        assert main([*flags.split(), *small.split(), *run_dir]) == 0
    assert "runs/[odd]" in capsys.readouterr().out
    made = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert len(made) == 3
    record = directory.read_record(tmp_path / "runs" / made[1])
    assert record["config"]["optimizer"] == "rmsprop_tf"
    assert Path(record["run"]["run_dir"]).name == made[1]


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU here")
def test_no_gpu(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    refused(capsys, main([*argv("run"), "--device", "gpu"]), "device = 'gpu': not available here")
    assert list(tmp_path.iterdir()) == []


# Resuming


def test_a_run_is_resumed(finished, stopped, capsys):
    assert main(["--resume", str(stopped)]) == 0
    out, err = capsys.readouterr()
    assert f"run directory: {stopped}" in out
    assert "from 3,552 steps" in out  # of two seeds
    assert err == ""
    assert results(stopped) == results(finished)
    assert main(["--resume", str(stopped)]) == 0
    assert "is complete: there is nothing left to do" in capsys.readouterr().out


def test_warnings_are_lines(stopped, capsys):
    newest = checkpoints.folder(stopped, checkpoints.existing(stopped)[-1])
    os.truncate(newest / "state.safetensors", 100)
    flags = ["--resume", str(stopped), "--total-timesteps", "3200", "--log-interval", "2"]
    assert main([*flags, "--quiet"]) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"warning: {newest / 'state.safetensors'} has 100 bytes")
    assert second.startswith("warning: total_timesteps raised from 3,192 to 3,200")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--learning-rate 0.02", "the run has learning_rate = 0.01, not 0.02"),
        ("--log-interval 3", "the run has log_interval = 2, not 3"),
        ("--core lstm --core-size 8", "core = 'none', not 'lstm', core_size = 64, not 8"),
        ("--run-dir elsewhere", "run_dir = elsewhere: stays as it is on resume"),
        ("--total-timesteps 1600", "total_timesteps = 1600: may only be raised on resume, from"),
        ("--total-timestep 6400", "unknown flag '--total-timestep': did you mean --total-times"),
    ],
)
def test_what_may_not_change_is_refused_by_name(stopped, capsys, flags, expected):
    before = contents(stopped)
    refused(capsys, main(["--resume", str(stopped), *flags.split()]), expected)
    assert contents(stopped) == before


def test_a_run_of_the_other_algorithm_is_refused(stopped, capsys):
    status = main(["--resume", str(stopped)], "a3c")
    refused(capsys, status, f"{str(stopped)!r} is a run of a2c, not of a3c")


# Signals


def test_a_signal_between_two_chunks(tmp_path, monkeypatch, capsys):
    stop_at_update(monkeypatch, 111)
    assert main(argv(tmp_path / "run")) == 143
    out, err = capsys.readouterr()
    assert err == ""
    assert f"resume with: --resume {tmp_path / 'run'}" in out


def test_a_signal_while_the_end_is_written_loses_nothing(tmp_path, monkeypatch):
    """It comes in the middle of the plot; the run is complete and stays so."""
    from rljax import analysis

    draw = analysis.plot_learning_curves
    send = lambda *args: (os.kill(os.getpid(), signal.SIGTERM), draw(*args))  # noqa: E731
    monkeypatch.setattr(analysis, "plot_learning_curves", send)
    assert main([*argv(tmp_path / "run"), "--quiet"]) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "completed"
    assert (tmp_path / "run" / "learning_curve.png").exists()


def test_a_signal_during_the_last_evaluation_keeps_what_was_trained(tmp_path, monkeypatch):
    interrupt = lambda *_, **how: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
    monkeypatch.setattr(evaluation, "evaluate", interrupt)
    assert main([*argv(tmp_path / "run", eval_every=0), "--quiet"]) == 130
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["env_steps"]) == ("interrupted", 3200)
    assert summary["final_return"] is None
    assert checkpoints.existing(tmp_path / "run")[-1] == 3200


def test_a_signal_before_training_leaves_nothing(tmp_path, monkeypatch, capsys):
    from rljax import a2c

    make = a2c.init_seeds
    send = lambda *args: (os.kill(os.getpid(), signal.SIGINT), make(*args))[1]  # noqa: E731
    monkeypatch.setattr(a2c, "init_seeds", send)
    assert main([*argv(tmp_path / "run"), "--quiet"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_a_run_in_order(tmp_path):
    """A process of its own."""
    flags = argv(tmp_path / "run", total_timesteps=10_000_000)
    process = processes.start_script(SCRIPT, flags, tmp_path / "run", rows=1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == ""
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert summary["updates"] > 0
    _, trees, _ = checkpoints.newest(tmp_path / "run")
    assert trees["state"]["learner/updates"].tolist() == [summary["updates"]] * 2


# Evaluation


def test_fresh_episodes_of_a_checkpoint_are_evaluated(finished, capsys):
    steps = checkpoints.existing(finished)
    for checkpoint, shown in (("last", steps[-1]), (str(steps[0]), steps[0]), ("best", None)):
        assert evaluate(finished, "--episodes", 3, "--checkpoint", checkpoint) == 0
        found = json.loads((finished / "evaluation.json").read_text())
        assert found["per_seed"] == [1.0, 1.0]
        assert (found["mode"], found["episodes"]) == ("greedy", 3)
        assert found["iqm"] == found["mean"] == 1.0
        assert shown is None or found["env_steps"] == [shown] * 2
    out = capsys.readouterr().out
    assert "checkpoint best" in out
    assert "95% interval" in out
    (finished / "evaluation.json").unlink()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--checkpoint 17", "has no checkpoint '17': there are last, best, 2560, "),
        ("--checkpoint newest", "has no checkpoint 'newest'"),
        ("--episodes 0", "episodes = 0: must be at least 1"),
        ("--envs 0", "envs = 0: must be at least 1"),
        ("--max-steps 0", "max_steps = 0: must be at least 1"),
        ("--episode 5", "unknown flag '--episode': did you mean --episodes"),
    ],
)
def test_evaluation_refuses_in_one_line(finished, capsys, flags, expected):
    refused(capsys, evaluate(finished, *flags.split()), expected)
    assert not (finished / "evaluation.json").exists()


def test_a_signal_ends_an_evaluation(finished, capsys, monkeypatch):
    real = evaluation.evaluate

    def interrupted(*args, watch, **how):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, watch=watch, **how)

    monkeypatch.setattr(evaluation, "evaluate", interrupted)
    assert evaluate(finished, "--episodes", 3) == 143
    assert capsys.readouterr().err == "interrupted\n"
    assert not (finished / "evaluation.json").exists()


def test_evaluation_of_a_damaged_run(stopped, capsys):
    """The checkpoint before is used and told; where there is none, it is refused."""
    *_, before, newest = checkpoints.existing(stopped)
    own = {"state": {"x": np.zeros(3)}}
    checkpoints.save(checkpoints.folder(stopped, newest), own, {"why": "my own"})
    assert evaluate(stopped, "--episodes", 1) == 0
    out, err = capsys.readouterr()
    assert f"{newest:012d} is of no run: its manifest has no 'config'" in err
    assert f"{before:,}" in out
    for env_steps in checkpoints.existing(stopped):
        checkpoints.save(checkpoints.folder(stopped, env_steps), own, {"why": "my own"})
    for status in (main(["--resume", str(stopped)]), evaluate(stopped)):
        assert status == 2
    err = capsys.readouterr().err
    assert err.count("no whole checkpoint in") == err.count("\n") == 2


# Plots


def test_plots_tell_runs_apart_by_what_differs(finished, stopped, tmp_path, capsys):
    record = directory.read_record(stopped)
    record["config"] |= {"learning_rate": 0.5, "env_kwargs": {"size": 4}}
    atomic_io.write_json(stopped / "config.json", record)
    output = tmp_path / "curves.v1"
    assert plot(finished, stopped, "--output", output) == 0
    assert (tmp_path / "curves.v1.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "curves.v1.svg").read_bytes()
    records = [directory.read_record(run_dir) for run_dir in (finished, stopped)]
    assert labels.of_runs([finished, stopped], records) == [
        "env_kwargs = none, learning_rate = 0.01",
        "env_kwargs = size=4, learning_rate = 0.5",
    ]
    assert labels.of_runs(["a", "b"], records[:1] * 2) == ["a", "b"]
    assert labels.of_runs(["a"], records[:1]) == [""]
    capsys.readouterr()
    assert plot(finished, tmp_path / "none") == 2
    assert "is no directory" in capsys.readouterr().err
    assert plot() == 2
    assert "must name at least one run directory" in capsys.readouterr().err


# Programs


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
    options = ["preset", "seed", "num_seeds", "run_dir", "log_interval", "stop_at_return", "quiet"]
    for name in [*Config.__dataclass_fields__, *options]:
        assert f"--{name.replace('_', '-')}" in done.stdout
    assert "Trains A2C, several seeds at once" in done.stdout
    assert time.perf_counter() - start < 10  # a hang, not a benchmark


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
