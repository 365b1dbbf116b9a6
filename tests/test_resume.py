"""Runs that are taken up again: by the script's own main, on real run directories."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from rljax import Config, runs
from rljax.loggers import tables
from rljax.runs import checkpoints
from rljax.utils import atomic_io

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
sys.path.insert(0, str(EXPERIMENTS))
SMALL = (
    "--env probes:RewardByAction --total-timesteps 3200 --num-envs 4 --num-steps 4 --hidden-sizes 8"
    " --num-seeds 2 --seed 5 --eval-episodes 4 --eval-every 800 --learning-rate 0.01 --quiet"
).split()


@pytest.fixture(scope="module")
def main():
    import a2c as script  # the experiment, not rljax.a2c

    return script.main


@pytest.fixture(scope="module")
def undisturbed(main, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert main([*SMALL, "--run-dir", str(run_dir)]) == 0
    return run_dir


@pytest.fixture(scope="module")
def stopped_once(main, undisturbed, tmp_path_factory):
    """A run that a signal ended between two rows of metrics, after about half its steps."""
    run_dir = tmp_path_factory.mktemp("runs") / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        stop_at_update(patch, 111)
        assert main([*SMALL, "--run-dir", str(run_dir)]) == 143
    return run_dir


@pytest.fixture
def stopped(stopped_once, tmp_path):
    return Path(shutil.copytree(stopped_once, tmp_path / "stopped"))


def stop_at_update(patch, update):
    """Sends SIGTERM in the chunk that takes training past an update."""
    from rljax import a2c

    chunks = a2c.chunks

    def interrupted(*args):
        for states, metrics in chunks(*args):
            if metrics.updates[0] >= update:
                os.kill(os.getpid(), signal.SIGTERM)
            yield states, metrics

    patch.setattr(a2c, "chunks", interrupted)
    patch.setattr(a2c, "CHUNK_SECONDS", 1e-9)  # chunks of one update


def results(run_dir):
    """All that a resumed run must have in common with an undisturbed one."""
    times = ["wall_seconds", "steps_per_second"]
    summary = json.loads((run_dir / "summary.json").read_text())
    last = checkpoints.folder(run_dir, checkpoints.existing(run_dir)[-1])
    return {
        "metrics": tables.read_metrics(run_dir).drop(columns=times).to_csv(),
        "evaluations": (run_dir / "evaluations.csv").read_text(),
        "summary": {n: x for n, x in summary.items() if n not in (*times, "compile_seconds")},
        **{path.name: path.read_bytes() for path in last.glob("*.safetensors")},
    }


def contents(run_dir):
    return {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


def test_a_stopped_run_goes_on_to_the_same_bits(main, undisturbed, stopped):
    steps = checkpoints.existing(stopped)
    assert steps[-1] == 16 * 111
    assert not Config(total_timesteps=3200, num_envs=4, num_steps=4).ends_row(111)
    rows = tables.read_metrics(stopped)
    assert rows["updates"].iloc[-1] == 111  # the row that the signal cut short
    assert main(["--resume", str(stopped), "--quiet"]) == 0
    assert results(stopped) == results(undisturbed)
    assert 111 not in set(tables.read_metrics(stopped)["updates"])


@pytest.mark.parametrize("number", [1, 4])
def test_a_signal_puts_off_an_evaluation_under_way(
    main, undisturbed, tmp_path, monkeypatch, number
):
    """The first of the run, and the one at its end."""
    from rljax import evaluation

    run_dir, begun, play = tmp_path / "run", [], evaluation.evaluate

    def interrupted(*args, watch, **how):
        def stop(ended, episodes, steps):
            begun.append(number) if steps == 0 else None
            if len(begun) == number and steps:
                os.kill(os.getpid(), signal.SIGTERM)
            watch(ended, episodes, steps)

        return play(*args, watch=stop, **how)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "evaluate", interrupted)
        assert main([*SMALL, "--run-dir", str(run_dir)]) == 143
    assert tables.read_metrics(run_dir)["env_steps"].iloc[-1] == 800 * number
    assert checkpoints.existing(run_dir)[-1] == 800 * number
    assert (run_dir / "evaluations.csv").exists() == (number > 1)
    assert main(["--resume", str(run_dir), "--quiet"]) == 0
    assert results(run_dir) == results(undisturbed)


def test_a_run_stopped_at_a_row_that_was_to_be_evaluated(main, undisturbed, tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at_update(patch, 100)
        assert main([*SMALL, "--run-dir", str(run_dir)]) == 143
    assert len((run_dir / "evaluations.csv").read_text().splitlines()) == 1 + 2 * 1
    assert main(["--resume", str(run_dir), "--quiet"]) == 0
    assert results(run_dir) == results(undisturbed)


def test_a_run_stopped_at_its_last_update_is_evaluated(main, undisturbed, tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at_update(patch, 200)
        assert main([*SMALL, "--run-dir", str(run_dir)]) == 143
    assert main(["--resume", str(run_dir), "--quiet"]) == 0
    assert results(run_dir) == results(undisturbed)


def test_rows_after_the_checkpoint_are_cut_and_half_a_line_is_repaired(main, undisturbed, stopped):
    with open(stopped / "metrics.csv", "a") as file:
        file.write("5,9999,9999,1.0,1,1,1,1,1,1,1,1,1,1\n6,9999,99")
    with open(stopped / "evaluations.csv", "a") as file:
        file.write("5,9999,9")
    assert main(["--resume", str(stopped), "--quiet"]) == 0
    assert results(stopped) == results(undisturbed)


def test_rows_before_the_checkpoint_are_its_own(main, undisturbed, stopped, capsys):
    """Where the table was cut below a checkpoint, the one that goes with it is used."""
    lines = (stopped / "metrics.csv").read_text().splitlines(keepends=True)
    newest = checkpoints.existing(stopped)[-1]
    marked = checkpoints.load(checkpoints.folder(stopped, newest))[0]["tables"]["metrics.csv"]
    kept = "".join(lines)[: marked["bytes"] - 10]
    (stopped / "metrics.csv").write_text(kept)
    assert main(["--resume", str(stopped), "--quiet"]) == 0
    assert "metrics.csv was changed or cut" in capsys.readouterr().err
    assert results(stopped) == results(undisturbed)


@pytest.mark.slow
def test_resuming_compiles_nothing_new(undisturbed, stopped):
    """Names of what is compiled, in processes of their own."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import a2c, jax.monitoring\n"
        "def told(event, seconds, **facts):\n"
        "    if 'backend_compile' in event: print(facts.get('fun_name'))\n"
        "jax.monitoring.register_event_duration_secs_listener(told)\n"
        "sys.exit(a2c.main(sys.argv[2:]))"
    )

    def compiled(*argv):
        command = [sys.executable, "-c", code, str(EXPERIMENTS), *argv]
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    first = compiled(*SMALL, "--run-dir", str(stopped.parent / "fresh"))
    again = compiled("--resume", str(stopped), "--quiet")
    assert any("_advance_all" in name for name in again)
    assert set(again) < set(first)  # it makes no fresh states
    assert len(again) < len(first)
    assert results(stopped) == results(stopped.parent / "fresh")


def test_a_complete_run_is_left_as_it_is(main, undisturbed, capsys):
    before = contents(undisturbed)
    assert main(["--resume", str(undisturbed)]) == 0
    assert "is complete: there is nothing left to do" in capsys.readouterr().out
    assert contents(undisturbed) == before


def test_a_run_killed_before_its_first_checkpoint_starts_at_its_beginning(
    main, undisturbed, stopped, capsys
):
    shutil.rmtree(stopped / "checkpoints")
    (stopped / "metrics.csv").unlink()
    assert main(["--resume", str(stopped), "--quiet"]) == 0
    assert "the run starts at its beginning" in capsys.readouterr().err
    assert results(stopped) == results(undisturbed)


def test_metrics_without_checkpoints_are_no_silent_restart(main, stopped, capsys):
    shutil.rmtree(stopped / "checkpoints")
    before = contents(stopped)
    assert main(["--resume", str(stopped)]) == 2
    assert "no whole checkpoint" in capsys.readouterr().err
    assert contents(stopped) == before


def test_a_damaged_checkpoint_is_named_and_put_aside(main, undisturbed, stopped, capsys):
    newest = checkpoints.folder(stopped, checkpoints.existing(stopped)[-1])
    os.truncate(newest / "state.safetensors", 100)
    assert main(["--resume", str(stopped), "--quiet"]) == 0
    err = capsys.readouterr().err
    assert f"warning: {newest / 'state.safetensors'} has 100 bytes" in err
    assert "the checkpoint before is used" in err
    assert results(stopped) == results(undisturbed)
    assert newest.with_name(f"{newest.name}.aside").is_dir()


def test_total_timesteps_may_be_raised(main, undisturbed, tmp_path, capsys):
    """A complete run of 200 updates, in rows of two, goes on to 400, in rows of four."""
    run_dir = Path(shutil.copytree(undisturbed, tmp_path / "run"))
    before = tables.read_metrics(run_dir)
    assert main(["--resume", str(run_dir), "--total-timesteps", "6400", "--quiet"]) == 0
    err = capsys.readouterr().err
    assert "warning: total_timesteps raised from 3,200 to 6,400" in err
    after = tables.read_metrics(run_dir)
    assert after.iloc[: len(before)].equals(before)
    new = after.iloc[len(before) :]
    assert new["updates"].tolist() == [u for u in range(204, 401, 4) for _ in range(2)]
    np.testing.assert_allclose(
        new["learning_rate"], 0.01 * (1 - (new["updates"] - 2.5) / 400), rtol=1e-5
    )
    assert (new["episodes"] == 4 * 16).all()  # every step ends one: none is counted twice
    summary = json.loads((run_dir / "summary.json").read_text())
    assert (summary["total_timesteps"], summary["updates"]) == (6400, 400)
    record = runs.read_record(run_dir)
    assert runs.read_config(record).total_timesteps == 6400
    assert [resumed["env_steps"] for resumed in record["resumed"]] == [3200]
    assert main(["--resume", str(run_dir), "--quiet"]) == 0  # and stays raised


@pytest.mark.parametrize("updates", [400, 300])  # rows of 4; or of 3, of which one ends at 111
def test_raising_between_two_rows_loses_no_episode(main, stopped, updates):
    steps = 16 * updates
    assert main(["--resume", str(stopped), "--total-timesteps", str(steps), "--quiet"]) == 0
    table = tables.read_metrics(stopped)
    assert table.groupby("seed")["episodes"].sum().tolist() == [steps, steps]
    assert table["updates"].tolist()[2 * 55 :: 2][:3] == [
        111,
        *{400: (112, 116), 300: (114, 117)}[updates],
    ]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--learning-rate 0.02", "the run has learning_rate = 0.01, not 0.02"),
        ("--seed 6", "the run has seed = 5, not 6"),
        ("--num-seeds 3 --gamma 0.5", "gamma = 0.99, not 0.5, num_seeds = 2, not 3"),
        ("--env CartPole-v1", "env = 'probes:RewardByAction', not 'CartPole-v1'"),
        ("--eval-mode sampled", "eval_mode = 'greedy', not 'sampled'"),
        ("--run-dir elsewhere", "run_dir = "),
        ("--total-timesteps 1600", "total_timesteps = 1600: may only be raised on resume, from"),
        (
            "--total-timestep 6400",
            "unknown flag '--total-timestep': did you mean --total-timesteps",
        ),
    ],
)
def test_what_may_not_change_is_refused_by_name(main, stopped, capsys, flags, expected):
    before = contents(stopped)
    assert main(["--resume", str(stopped), *flags.split()]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert contents(stopped) == before


def test_what_changes_nothing_may_change(main, undisturbed, stopped):
    flags = "--keep-checkpoints 1 --checkpoint-every 1600 --device cpu --quiet"
    assert main(["--resume", str(stopped), *flags.split()]) == 0
    assert results(stopped) == results(undisturbed)
    assert checkpoints.existing(stopped) == [3200]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"config": {"gamma": 0.5}}, "gamma = 0.99, not 0.5"),
        ({"config": {"total_timesteps": 1600}}, "total_timesteps = 1600: the checkpoint is of"),
        ({"run": {"num_seeds": 3}}, "seeds = [5, 6], not [5, 6, 7]"),
        ({"config": {"hidden_sizes": [9]}}, "hidden_sizes = (8,), not (9,)"),
        ({"config": {"speed": 9}}, "unknown setting 'speed'"),
        ({"algorithm": "a3c"}, "is a run of a3c, not of a2c"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(main, stopped, capsys, change, expected):
    """As if its config.json or its checkpoints had come from elsewhere."""
    record = runs.read_record(stopped)
    for part, values in change.items():
        record[part] = {**record[part], **values} if isinstance(values, dict) else values
    atomic_io.write_json(stopped / "config.json", record)
    before = contents(stopped)
    assert main(["--resume", str(stopped)]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1
    assert contents(stopped) == before


def test_a_run_whose_network_would_be_another_now_is_refused(main, stopped, capsys):
    record = json.loads((stopped / "config.json").read_bytes())
    record["network"]["observation_scale"] = 1 / 255
    (stopped / "config.json").write_text(json.dumps(record))
    assert main(["--resume", str(stopped)]) == 2
    err = capsys.readouterr().err
    assert "was trained with the network {'torso': 'MLP'" in err
    assert err.count("\n") == 1


def test_a_checkpoint_of_another_network_is_refused(main, stopped, capsys, monkeypatch):
    """A user's own module keeps its name and changes its insides."""
    from rljax import networks

    mlp = networks.MLP

    def MLP(hidden_sizes, *rest):  # noqa: N802  the name is recorded
        return mlp((7,), *rest)

    monkeypatch.setattr(networks, "MLP", MLP)
    jax.clear_caches()
    before = contents(stopped)
    assert main(["--resume", str(stopped)]) == 2
    err = capsys.readouterr().err
    assert "another network or environment: the saved learner/params/" in err
    assert "is float32[2, 8, 2], not float32[2, 7, 2]" in err
    assert contents(stopped) == before
    jax.clear_caches()


def test_a_checkpoint_of_another_format_is_refused(main, stopped, capsys, monkeypatch):
    monkeypatch.setattr(checkpoints, "FORMAT", 2)
    assert main(["--resume", str(stopped)]) == 2
    assert "format 1, not 2: of another version" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "is no directory"),
        (lambda path: path.mkdir(), "is no run directory"),
        (lambda path: path.write_text(""), "is no directory"),
        (lambda path: (path.mkdir(), (path / "config.json").write_text("{")), "is damaged"),
        (lambda path: (path.mkdir(), (path / "config.json").write_text("[]")), "has no 'config'"),
    ],
    ids=["absent", "empty", "a file", "half a config", "another config"],
)
def test_what_is_no_run_is_refused(main, tmp_path, capsys, make, expected):
    make(tmp_path / "run")
    before = contents(tmp_path)
    assert main(["--resume", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1
    assert contents(tmp_path) == before


def test_two_processes_cannot_train_in_one_directory(main, undisturbed, stopped, capsys):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from rljax.utils import atomic_io\n"
            "with atomic_io.lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)",
            str(stopped / ".lock"),
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"held\n"
    assert main(["--resume", str(stopped)]) == 2
    assert f"is in use by process {holder.pid} on" in capsys.readouterr().err
    holder.kill()
    holder.wait()
    assert main(["--resume", str(stopped), "--quiet"]) == 0
    assert results(stopped) == results(undisturbed)


def test_a_copy_elsewhere_is_the_run(main, undisturbed, stopped, tmp_path, monkeypatch):
    elsewhere = tmp_path / "else where" / "run"
    shutil.move(stopped, elsewhere)
    monkeypatch.chdir(elsewhere.parent)
    assert main(["--resume", "run", "--quiet"]) == 0
    assert results(elsewhere) == results(undisturbed)


def test_versions_that_changed_are_told(main, stopped, capsys):
    record = runs.read_record(stopped)
    record["versions"]["jax"] = "0.0.1"
    atomic_io.write_json(stopped / "config.json", record)
    assert main(["--resume", str(stopped), "--quiet"]) == 0
    assert f"jax 0.0.1 -> {jax.__version__}: its bits may differ" in capsys.readouterr().err


def test_a_full_disk_stops_the_run_and_leaves_what_is_there_whole(
    main, undisturbed, tmp_path, monkeypatch, capsys
):
    run_dir = tmp_path / "run"

    def full(path, contents):
        if "1920" in path.name:
            raise atomic_io.WriteError(f"{path} could not be written (No space left on device)")
        write_folder(path, contents)

    write_folder = atomic_io.write_folder
    with monkeypatch.context() as patch:
        patch.setattr(atomic_io, "write_folder", full)
        assert main([*SMALL, "--run-dir", str(run_dir)]) == 1
    err = capsys.readouterr().err
    assert "No space left on device" in err
    assert err.count("\n") == 1
    assert main(["--resume", str(run_dir), "--quiet"]) == 0
    assert results(run_dir) == results(undisturbed)


def test_evaluate_plays_fresh_episodes_of_a_checkpoint(undisturbed, capsys):
    import evaluate as script

    steps = checkpoints.existing(undisturbed)
    for checkpoint, shown in (("last", steps[-1]), (str(steps[0]), steps[0]), ("best", None)):
        flags = ["--episodes", "3", "--checkpoint", checkpoint]
        assert script.main([str(undisturbed), *flags]) == 0
        figures = json.loads((undisturbed / "evaluation.json").read_text())
        assert figures["per_seed"] == [1.0, 1.0]
        assert (figures["mode"], figures["episodes"]) == ("greedy", 3)
        assert figures["iqm"] == figures["mean"] == 1.0
        assert shown is None or figures["env_steps"] == [shown] * 2
    assert "checkpoint best" in capsys.readouterr().out
    (undisturbed / "evaluation.json").unlink()


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
def test_evaluate_refuses_in_one_line(undisturbed, capsys, flags, expected):
    import evaluate as script

    assert script.main([str(undisturbed), *flags.split()]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1
    assert not (undisturbed / "evaluation.json").exists()


def test_a_signal_ends_evaluate(undisturbed, capsys, monkeypatch):
    import evaluate as script

    from rljax import evaluation

    play = evaluation.evaluate

    def interrupted(*args, watch, **how):
        os.kill(os.getpid(), signal.SIGTERM)
        return play(*args, watch=watch, **how)

    monkeypatch.setattr(evaluation, "evaluate", interrupted)
    assert script.main([str(undisturbed), "--episodes", "3"]) == 143
    assert capsys.readouterr().err == "interrupted\n"
    assert not (undisturbed / "evaluation.json").exists()


def test_the_end_of_a_diverged_run_is_the_same_when_resumed(main, tmp_path, capsys, monkeypatch):
    """No checkpoint holds what is not finite: each resumption diverges at the same update."""
    from rljax import a2c

    flags = [*SMALL, "--learning-rate", "1e38"]
    found = []
    for name, seconds in (("run", 0.5), ("other", 1e-9)):
        monkeypatch.setattr(a2c, "CHUNK_SECONDS", seconds)
        run_dir = tmp_path / name
        assert main([*flags, "--run-dir", str(run_dir)]) == 1
        for _ in range(3):
            assert main(["--resume", str(run_dir), "--quiet"]) == 1
            assert "seed 5 diverged" in capsys.readouterr().err
        _, trees, problems = checkpoints.newest(run_dir)
        assert problems == []
        assert all(np.isfinite(x).all() for n, x in trees["state"].items() if "params" in n)
        assert checkpoints.existing(run_dir) == [0]
        summary = json.loads((run_dir / "summary.json").read_text())
        assert summary["status"] == "diverged"
        updates = tables.read_metrics(run_dir)["updates"].tolist()
        found.append((summary["updates"], summary["diverged"], updates))
    assert found[0] == found[1]


def test_a_run_with_rows_has_a_checkpoint(main, tmp_path, monkeypatch, capsys):
    """Where the very first one fails, there are no rows either, and the run starts anew."""

    def full(path, contents):
        raise atomic_io.WriteError(f"{path} could not be written (No space left on device)")

    with monkeypatch.context() as patch:
        patch.setattr(atomic_io, "write_folder", full)
        assert main([*SMALL, "--run-dir", str(tmp_path / "run")]) == 1
    assert len(tables.read_metrics(tmp_path / "run")) == 0
    assert main(["--resume", str(tmp_path / "run"), "--quiet"]) == 0
    assert "starts at its beginning" in capsys.readouterr().err


def test_a_summary_that_cannot_be_read_is_written_again(main, undisturbed, tmp_path):
    run_dir = Path(shutil.copytree(undisturbed, tmp_path / "run"))
    for text in ("{}", '{"status": "comp'):
        (run_dir / "summary.json").write_text(text)
        assert main(["--resume", str(run_dir), "--quiet"]) == 0
        assert results(run_dir) == results(undisturbed)


def test_a_checkpoint_of_no_run_is_damage(main, stopped, capsys):
    """The one before is used; where there is none, it is refused."""
    import evaluate as script

    *_, before, newest = checkpoints.existing(stopped)
    own = {"state": {"x": np.zeros(3)}}
    checkpoints.save(checkpoints.folder(stopped, newest), own, {"why": "my own"})
    assert script.main([str(stopped), "--episodes", "1"]) == 0
    out, err = capsys.readouterr()
    assert f"{newest:012d} is of no run: its manifest has no 'config'" in err
    assert f"{before:,}" in out
    for env_steps in checkpoints.existing(stopped):
        checkpoints.save(checkpoints.folder(stopped, env_steps), own, {"why": "my own"})
    for status in (main(["--resume", str(stopped)]), script.main([str(stopped)])):
        assert status == 2
    err = capsys.readouterr().err
    assert err.count("no whole checkpoint in") == err.count("\n") == 2


def test_options_given_on_resume_are_kept(main, stopped, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at_update(patch, 150)
        flags = "--keep-checkpoints 5 --device cpu --quiet".split()
        assert main(["--resume", str(stopped), *flags]) == 143
    assert main(["--resume", str(stopped), "--quiet"]) == 0
    assert len(checkpoints.existing(stopped)) == 5
    assert tables.read_metrics(stopped)["updates"].iloc[-1] == 200
    assert runs.read_record(stopped)["run"]["device"] == "cpu"


def test_plot_tells_runs_apart_by_what_differs(main, undisturbed, stopped, tmp_path, capsys):
    import plot as script

    record = runs.read_record(stopped)
    record["config"] |= {"learning_rate": 0.5, "env_kwargs": {"size": 4}}
    atomic_io.write_json(stopped / "config.json", record)
    output = tmp_path / "curves.v1"
    assert script.main([str(undisturbed), str(stopped), "--output", str(output)]) == 0
    assert (tmp_path / "curves.v1.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "curves.v1.svg").read_bytes()
    records = [runs.read_record(run_dir) for run_dir in (undisturbed, stopped)]
    assert script.labels([undisturbed, stopped], records) == [
        "env_kwargs = none, learning_rate = 0.01",
        "env_kwargs = size=4, learning_rate = 0.5",
    ]
    assert script.labels(["a", "b"], records[:1] * 2) == ["a", "b"]
    assert script.labels(["a"], records[:1]) == [""]
    capsys.readouterr()
    assert script.main([str(undisturbed), str(tmp_path / "none")]) == 2
    assert "is no directory" in capsys.readouterr().err
    assert script.main([]) == 2
    assert "must name at least one run directory" in capsys.readouterr().err
