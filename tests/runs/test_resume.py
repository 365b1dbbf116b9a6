"""Runs that are resumed, to the same bits as an undisturbed run."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from small_runs import contents, results, stop_at_update, train, train_half

import rljax
from rljax import a2c, evaluation
from rljax.loggers import tables
from rljax.runs import checkpoints, directory, records
from rljax.utils import atomic_io, forkserver, seeds

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert train(run_dir).status == "completed"
    return run_dir


@pytest.fixture(scope="module")
def stopped_once(undisturbed, tmp_path_factory):
    return train_half(tmp_path_factory.mktemp("runs") / "stopped")


@pytest.fixture
def stopped(stopped_once, tmp_path):
    return Path(shutil.copytree(stopped_once, tmp_path / "stopped"))


def test_a_stopped_run_continues_to_the_same_bits(undisturbed, stopped):
    steps = checkpoints.existing(stopped)
    assert steps[-1] == 16 * 111
    rows = tables.read_metrics(stopped)
    assert rows["updates"].iloc[-1] == 111  # the row that the signal cut short
    run = rljax.resume(stopped, quiet=True)
    assert results(stopped) == results(undisturbed)
    assert 111 not in set(tables.read_metrics(stopped)["updates"])
    # What is returned is what was written.
    assert run.summary["status"] == run.status == "completed"
    loaded = rljax.load(stopped)
    assert loaded.metrics.equals(run.metrics)
    jax.tree.map(np.testing.assert_array_equal, run.state, loaded.state)


@pytest.mark.parametrize("number", [1, 4])
def test_a_signal_puts_off_an_evaluation_under_way(undisturbed, tmp_path, monkeypatch, number):
    """The first of the run, and the one at its end."""
    run_dir, begun, evaluate = tmp_path / "run", [], evaluation.evaluate

    def interrupted(*args, watch, **how):
        def stop(ended, episodes, steps):
            begun.append(number) if steps == 0 else None
            if len(begun) == number and steps:
                os.kill(os.getpid(), signal.SIGTERM)
            watch(ended, episodes, steps)

        return evaluate(*args, watch=stop, **how)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "evaluate", interrupted)
        run = train(run_dir)
    assert (run.status, run.exit_status) == ("interrupted", 143)
    assert tables.read_metrics(run_dir)["env_steps"].iloc[-1] == 800 * number
    assert checkpoints.existing(run_dir)[-1] == 800 * number
    assert (run_dir / "evaluations.csv").exists() == (number > 1)
    rljax.resume(run_dir, quiet=True)
    assert results(run_dir) == results(undisturbed)


@pytest.mark.parametrize(("update", "evaluations"), [(100, 1), (200, 3)])
def test_a_run_stopped_at_a_row_that_was_to_be_evaluated(
    undisturbed, tmp_path, monkeypatch, update, evaluations
):
    """On the way, and after the last update."""
    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at_update(patch, update)
        assert train(run_dir).status == "interrupted"
    rows = (run_dir / "evaluations.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * evaluations
    rljax.resume(run_dir, quiet=True)
    assert results(run_dir) == results(undisturbed)


def test_rows_after_the_checkpoint_are_cut_and_half_a_line_is_repaired(undisturbed, stopped):
    with open(stopped / "metrics.csv", "a") as file:
        file.write("5,9999,9999,1.0,1,1,1,1,1,1,1,1,1,1,1\n6,9999,99")
    with open(stopped / "evaluations.csv", "a") as file:
        file.write("5,9999,9")
    rljax.resume(stopped, quiet=True)
    assert results(stopped) == results(undisturbed)


def test_rows_before_the_checkpoint_are_its_own(undisturbed, stopped):
    """Where the table was cut below a checkpoint, the one that belongs to it is used."""
    text = (stopped / "metrics.csv").read_text()
    newest = checkpoints.existing(stopped)[-1]
    marked = checkpoints.load(checkpoints.folder(stopped, newest))[0]["tables"]["metrics.csv"]
    (stopped / "metrics.csv").write_text(text[: marked["bytes"] - 10])
    with pytest.warns(UserWarning, match=r"metrics.csv was changed or cut"):
        rljax.resume(stopped, quiet=True)
    assert results(stopped) == results(undisturbed)


@pytest.mark.slow
def test_resuming_compiles_nothing_new(undisturbed, stopped):
    """Names of what is compiled, in processes of their own."""
    code = (
        "import sys, jax.monitoring, rljax, small_runs\n"
        "from pathlib import Path\n"
        "def told(event, seconds, **facts):\n"
        "    if 'backend_compile' in event: print(facts.get('fun_name'))\n"
        "jax.monitoring.register_event_duration_secs_listener(told)\n"
        "what, run_dir = sys.argv[1], Path(sys.argv[2])\n"
        "small_runs.train(run_dir) if what == 'train' else rljax.resume(run_dir, quiet=True)"
    )

    def compiled(what, run_dir):
        command = [sys.executable, "-c", code, what, str(run_dir)]
        here = Path(__file__).parent
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
        return done.stdout.split()

    first = compiled("train", stopped.parent / "fresh")
    again = compiled("resume", stopped)
    assert any("_advance" in name for name in again)
    assert set(again) <= set(first)
    assert len(again) <= len(first)
    assert results(stopped) == results(stopped.parent / "fresh")


def test_a_complete_run_is_left_as_it_is(undisturbed, capsys):
    before = contents(undisturbed)
    run = rljax.resume(undisturbed)
    assert "is complete: there is nothing left to do" in capsys.readouterr().out
    assert (run.status, run.run_dir) == ("completed", undisturbed)
    rljax.resume(undisturbed, quiet=True)
    assert capsys.readouterr().out == ""
    assert contents(undisturbed) == before


def test_a_run_killed_before_its_first_checkpoint_starts_at_its_beginning(undisturbed, stopped):
    shutil.rmtree(stopped / "checkpoints")
    (stopped / "metrics.csv").unlink()
    with pytest.warns(UserWarning, match="the run starts at its beginning"):
        rljax.resume(stopped, quiet=True)
    assert results(stopped) == results(undisturbed)


def test_a_damaged_checkpoint_is_named_and_put_aside(undisturbed, stopped):
    newest = checkpoints.folder(stopped, checkpoints.existing(stopped)[-1])
    os.truncate(newest / "state.safetensors", 100)
    told = rf"{newest / 'state.safetensors'} has 100 bytes.*; the checkpoint before is used"
    with pytest.warns(UserWarning, match=told):
        rljax.resume(stopped, quiet=True)
    assert results(stopped) == results(undisturbed)
    assert newest.with_name(f"{newest.name}.aside").is_dir()


def test_total_timesteps_may_be_raised(undisturbed, tmp_path):
    """A complete run of 200 updates continues to 400, in rows of two as before."""
    run_dir = Path(shutil.copytree(undisturbed, tmp_path / "run"))
    before = tables.read_metrics(run_dir)
    with pytest.warns(UserWarning, match="total_timesteps raised from 3,192 to 6,400"):
        rljax.resume(run_dir, total_timesteps=6400, quiet=True)
    after = tables.read_metrics(run_dir)
    assert after.iloc[: len(before)].equals(before)
    new = after.iloc[len(before) :]
    assert new["updates"].tolist() == [u for u in range(202, 401, 2) for _ in range(2)]
    np.testing.assert_allclose(
        new["learning_rate"], 0.01 * (1 - (new["updates"] - 1.5) / 400), rtol=1e-5
    )
    assert (new["episodes"] == 2 * 16).all()  # every step ends one: none is counted twice
    run = rljax.load(run_dir)
    assert (run.summary["total_timesteps"], run.summary["updates"]) == (6400, 400)
    record = directory.read_record(run_dir)
    assert records.read_config(record).total_timesteps == 6400
    assert record["run"]["log_interval"] == 2
    assert [resumed["env_steps"] for resumed in record["resumed"]] == [3200]
    # And stays raised.
    before = contents(run_dir)
    assert rljax.resume(run_dir, quiet=True).config.total_timesteps == 6400
    assert contents(run_dir) == before


def test_raising_between_two_rows_loses_no_episode(stopped):
    with pytest.warns(UserWarning, match="total_timesteps raised"):
        run = rljax.resume(stopped, total_timesteps=6400, quiet=True)
    assert run.metrics.groupby("seed")["episodes"].sum().tolist() == [6400, 6400]
    assert run.metrics["updates"].tolist() == [u for u in range(2, 401, 2) for _ in range(2)]


def test_what_changes_nothing_may_change(undisturbed, stopped):
    here = jax.default_backend()  # another device rounds in another way
    changes = dict(keep_checkpoints=1, checkpoint_every=1600, device=here, quiet=True)
    rljax.resume(stopped, **changes)
    assert results(stopped) == results(undisturbed)
    assert checkpoints.existing(stopped) == [3200]


def test_options_given_on_resume_are_kept(stopped, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at_update(patch, 150)
        run = rljax.resume(stopped, keep_checkpoints=5, device="cpu", quiet=True)
        assert run.status == "interrupted"
    rljax.resume(stopped, quiet=True)
    assert len(checkpoints.existing(stopped)) == 5
    assert tables.read_metrics(stopped)["updates"].iloc[-1] == 200
    record = directory.read_record(stopped)
    assert record["run"]["device"] == "cpu"
    assert [again["env_steps"] // 16 for again in record["resumed"]] == [111, 150]


def test_two_processes_cannot_train_in_one_directory(undisturbed, stopped):
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
    with pytest.raises(ValueError, match=f"is in use by process {holder.pid} on"):
        rljax.resume(stopped)
    holder.kill()
    holder.wait()
    rljax.resume(stopped, quiet=True)
    assert results(stopped) == results(undisturbed)


def test_a_copy_elsewhere_is_the_run(undisturbed, stopped, tmp_path, monkeypatch):
    elsewhere = tmp_path / "else where" / "run"
    shutil.move(stopped, elsewhere)
    monkeypatch.chdir(elsewhere.parent)
    rljax.resume("run", quiet=True)
    assert results(elsewhere) == results(undisturbed)


def test_versions_that_changed_are_told(stopped):
    record = directory.read_record(stopped)
    record["versions"]["jax"] = "0.0.1"
    atomic_io.write_json(stopped / "config.json", record)
    with pytest.warns(UserWarning, match=f"jax 0.0.1 -> {jax.__version__}; results may not be bit"):
        rljax.resume(stopped, quiet=True)


def test_a_full_disk_stops_the_run_and_leaves_what_is_there_whole(
    undisturbed, tmp_path, monkeypatch
):
    write_folder = atomic_io.write_folder

    def full(path, contents):
        if "1920" in path.name:
            raise atomic_io.WriteError(f"{path} could not be written (No space left on device)")
        write_folder(path, contents)

    with monkeypatch.context() as patch:
        patch.setattr(atomic_io, "write_folder", full)
        with pytest.raises(atomic_io.WriteError, match="No space left on device"):
            train(tmp_path / "run")
    rljax.resume(tmp_path / "run", quiet=True)
    assert results(tmp_path / "run") == results(undisturbed)


def test_a_run_with_rows_has_a_checkpoint(tmp_path, monkeypatch):
    """Where the very first one fails, there are no rows either, and the run starts anew."""

    def full(path, contents):
        raise atomic_io.WriteError(f"{path} could not be written (No space left on device)")

    with monkeypatch.context() as patch:
        patch.setattr(atomic_io, "write_folder", full)
        with pytest.raises(atomic_io.WriteError):
            train(tmp_path / "run")
    assert len(tables.read_metrics(tmp_path / "run")) == 0
    with pytest.warns(UserWarning, match="starts at its beginning"):
        assert rljax.resume(tmp_path / "run", quiet=True).status == "completed"


def test_the_end_of_a_diverged_run_is_the_same_when_resumed(tmp_path, monkeypatch):
    """No checkpoint holds what is not finite: each time it diverges at the same update."""
    found = []
    for name, seconds in (("run", 0.5), ("other", 1e-9)):
        monkeypatch.setattr(seeds, "CHUNK_SECONDS", seconds)
        run_dir = tmp_path / name
        with pytest.warns(UserWarning, match="seed 5 diverged"):
            train(run_dir, learning_rate=1e38)
        for _ in range(3):
            with pytest.warns(UserWarning, match="seed 5 diverged"):
                run = rljax.resume(run_dir, quiet=True)
            assert (run.status, run.exit_status) == ("diverged", 1)
        _, trees, problems = checkpoints.newest(run_dir)
        assert problems == []
        assert all(np.isfinite(x).all() for n, x in trees["state"].items() if "params" in n)
        assert checkpoints.existing(run_dir) == [0]
        updates = run.metrics["updates"].tolist()
        found.append((run.summary["updates"], run.summary["diverged"], updates))
    assert found[0] == found[1]


def test_a_summary_that_cannot_be_read_is_written_again(undisturbed, tmp_path):
    run_dir = Path(shutil.copytree(undisturbed, tmp_path / "run"))
    for text in ("{}", '{"status": "comp'):
        (run_dir / "summary.json").write_text(text)
        rljax.resume(run_dir, quiet=True)
        assert results(run_dir) == results(undisturbed)


def test_a_run_that_cannot_be_made_again_is_not_removed(undisturbed, tmp_path, monkeypatch):
    """Even if it has not trained yet; only a new one leaves nothing."""

    def refuse(*args, **how):
        raise forkserver.RefusedError("there is no simulator on this machine")
        yield

    monkeypatch.setattr(a2c, "chunks", refuse)
    with pytest.raises(forkserver.RefusedError):
        train(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    run_dir = Path(shutil.copytree(undisturbed, tmp_path / "run"))
    for env_steps in checkpoints.existing(run_dir):
        shutil.rmtree(checkpoints.folder(run_dir, env_steps))
    (run_dir / "metrics.csv").write_text("")
    with pytest.raises(forkserver.RefusedError):
        rljax.resume(run_dir, quiet=True)
    assert checkpoints.existing(run_dir) == [0]


def test_a_state_may_have_arrays_without_elements(undisturbed, tmp_path, monkeypatch):
    """Such an environment is trained, saved and resumed as one without them."""
    with monkeypatch.context() as patch:
        stop_at_update(patch, 100)
        train(tmp_path / "run", env="probes:WithNothing")
    run = rljax.resume(tmp_path / "run", quiet=True)
    assert run.status == "completed"
    returns = [tables.read_metrics(x)["episodic_return"] for x in (undisturbed, tmp_path / "run")]
    np.testing.assert_allclose(*returns, rtol=1e-4)
