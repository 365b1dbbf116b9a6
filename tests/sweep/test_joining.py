"""Several processes on one sweep: real files, real signals."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rljax import sweep as library
from rljax.cli import sweep as command_line
from rljax.sweep import joining, parts, population
from rljax.utils import atomic_io, verified

SCRIPT = Path(__file__).parents[2] / "experiments" / "sweep.py"
SMALL = (
    "--env probes:RewardByAction --total-timesteps 1600 --num-envs 4 --hidden-sizes 8 --seed 3"
    " --num-seeds 2 --eval-episodes 4 --max-parallel 4"
    " --axis learning_rate=1e-9,0.02,0.05 --axis num_steps=4,8"
).split()


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    monkeypatch.setattr("rljax.sweep.report._draw", lambda *_: [])


def main(argv):
    return command_line.main("Sweeps.", argv)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A sweep by one process."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    assert main([*SMALL, "--run-dir", str(folder), "--quiet"]) == 0
    return folder


def table(folder):
    return (folder / "results.csv").read_bytes()


def left_by_another(alone, folder, lines, name="there-1-a"):
    """A directory in which a process was killed after so many batches, in the middle of the next:
    its part stays."""
    part = folder / parts.FOLDER / name
    part.mkdir(parents=True)
    (folder / parts.FOLDER / "claims").mkdir(exist_ok=True)
    shutil.copy(alone / "config.json", folder)
    entries = (alone / "finished.jsonl").read_bytes().splitlines(keepends=True)
    end = json.loads(entries[lines - 1])["bytes"]
    (part / "finished.jsonl").write_bytes(b"".join(entries[:lines]) + b'{"agents": [')
    (part / "results.csv").write_bytes(table(alone)[: end + 100])
    atomic_io.write_json(part / "machine.json", {"device": "their cpu"})
    return part


def test_one_that_joins_nobody_makes_the_sweep(alone, tmp_path, capsys):
    """The table and ranking of a sweep by itself, and nothing of the joining left."""
    folder = tmp_path / "sweep"
    assert main([*SMALL, "--join", str(folder)]) == 0
    assert table(folder) == table(alone)
    files = {".lock", "config.json", "results.csv", "finished.jsonl", "sweep.json"}
    assert {x.name for x in folder.iterdir()} == files
    before, after = (json.loads((f / "sweep.json").read_bytes()) for f in (alone, folder))
    assert (after["status"], after["ranking"]) == ("completed", before["ranking"])
    (joined,) = json.loads((folder / "config.json").read_bytes())["joined"]
    assert joined["device"] == "cpu"
    capsys.readouterr()
    for again in (["--join", str(folder)], [*SMALL, "--join", str(folder)]):
        assert main(again) == 0
        assert "is complete: there is nothing left to do" in capsys.readouterr().out
    assert main(["--resume", str(folder)]) == 0


@pytest.mark.parametrize("how", ["--join", "--resume"])
@pytest.mark.parametrize("lines", [1, 3])
def test_parts_are_merged_whole(alone, tmp_path, capsys, how, lines):
    """Also by one that works alone afterwards."""
    folder = tmp_path / "sweep"
    left_by_another(alone, folder, lines)
    assert main([how, str(folder)]) == 0
    assert table(folder) == table(alone)
    assert not (folder / parts.FOLDER).exists()
    joined = json.loads((folder / "config.json").read_bytes())["joined"]
    assert joined[0] == {"device": "their cpu"}
    assert len(joined) == 1 + (how == "--join")
    assert "12 of 12 trials" in capsys.readouterr().out


def test_what_two_have_trained_is_in_the_table_once(alone, tmp_path):
    """One was taken for dead, and finished its batches after all. The columns of its part are in
    another order, as those of a first batch of another group may be."""
    folder = tmp_path / "sweep"
    left_by_another(alone, folder, 2)
    part = left_by_another(alone, folder, 3, name="there-2-b")
    entries = [json.loads(x) for x in (alone / "finished.jsonl").read_bytes().splitlines()[:3]]
    lines = table(alone)[: entries[2]["bytes"]].decode().splitlines()
    rows = [line.split(",") for line in lines]
    lines = [",".join([*row[:6], row[-1], *row[6:-1]]) for row in rows]
    both = {str(number) for entry in entries[1:] for number in entry["agents"]}
    lines = [line for line in lines if line.split(",")[0] in both | {"trial"}]
    moved = "".join(line + "\n" for line in lines).encode()
    (part / "results.csv").write_bytes(moved)
    entry = entries[2] | {"agents": sorted(map(int, both))} | verified.mark(moved)
    (part / "finished.jsonl").write_text(json.dumps(entry) + "\n")
    assert main(["--join", str(folder), "--quiet"]) == 0
    assert sorted(table(folder).splitlines()) == sorted(table(alone).splitlines())


def test_a_damaged_part_is_named(alone, tmp_path, capsys):
    folder = tmp_path / "sweep"
    part = left_by_another(alone, folder, 1)
    (part / "results.csv").write_bytes(b"x" + table(alone)[1:])
    assert main(["--join", str(folder), "--quiet"]) == 1
    error = capsys.readouterr().err
    assert f"{part / 'results.csv'} was changed or cut" in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_trial_that_fails_is_tried_once_and_told_to_the_others(tmp_path, capsys, monkeypatch):
    """Those that wait for it would wait for ever."""
    train, tried = population._train_batch, []

    def failing(program, trials, pace, how):
        tried.append([trial.number for trial in trials])
        if trials[0].point == 2 and is_failing:
            raise population.EnvError("the track is closed")
        return (yield from train(program, trials, pace, how))

    is_failing = True
    monkeypatch.setattr(population, "_train_batch", failing)
    folder = tmp_path / "sweep"
    flags = [*SMALL, "--max-parallel", "2", "--join", str(folder), "--quiet"]
    assert main(flags) == 1
    error = capsys.readouterr().err
    assert "point 2" in error
    assert "the track is closed" in error
    assert len(tried) == 6
    summary = json.loads((folder / "sweep.json").read_bytes())
    assert (summary["status"], summary["agents_finished"], summary["agents_failed"]) == (
        "failed",
        10,
        2,
    )
    is_failing = False
    assert main(["--join", str(folder), "--quiet"]) == 0
    assert tried[6:] == [tried[i] for i in range(6) if tried[i][0] == 4]
    assert json.loads((folder / "sweep.json").read_bytes())["status"] == "completed"
    assert not (folder / parts.FOLDER).exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--join {new} --run-dir {new}", "join: must not be given together with run_dir"),
        ("--join {new} --resume {sweep}", "join: must not be given together with resume"),
        ("--join {new}", "axis: must be given at least once"),
        ("--join {sweep} --gamma 0.5", "the sweep has gamma = "),
        ("--join {sweep} --num-seeds 3", "the sweep has num_seeds = 2, not 3"),
        ("--join {other} --axis gamma=0.9", "is not empty"),
    ],
)
def test_bad_input(alone, tmp_path, capsys, argv, message):
    other, new = tmp_path / "other", tmp_path / "new"
    other.mkdir()
    (other / "thesis.tex").touch()
    assert main(argv.format(sweep=alone, other=other, new=new).split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not new.exists()


def test_one_that_works_alone_is_not_joined_nor_the_other_way_round(alone, tmp_path, capsys):
    folder = tmp_path / "sweep"
    left_by_another(alone, folder, 1)
    for is_shared, how in ((False, "--join"), (True, "--resume")):
        with atomic_io.lock(folder / ".lock", is_shared):
            assert main([how, str(folder)]) == 2
        assert f"is in use by process {os.getpid()}" in capsys.readouterr().err


def test_without_locks_a_sweep_is_joined_and_not_resumed(alone, tmp_path, capsys, monkeypatch):
    """As on some shares."""

    def lock(*_):
        raise OSError(atomic_io.NO_LOCKS[0], "No locks available")

    monkeypatch.setattr("fcntl.flock", lock)
    folder = tmp_path / "sweep"
    assert main([*SMALL, "--join", str(folder), "--quiet"]) == 0
    assert table(folder) == table(alone)
    (folder / "sweep.json").unlink()
    assert main(["--resume", str(folder)]) == 2
    assert "cannot be written (No locks available)" in capsys.readouterr().err


def test_from_python(alone, tmp_path):
    """`sweep.run`, in processes that call it alike."""
    axes, seeds = {"learning_rate": [1e-9, 0.02]}, [3, 4]
    record = command_line.parse("Sweeps.", [*SMALL, "--run-dir", str(tmp_path / "x")])
    how = dict(eval_episodes=4, max_parallel=4, join=True)
    frames = [
        library.run(record.base, axes, seeds, run_dir=tmp_path / "sweep", **how) for _ in range(2)
    ]
    assert frames[0].equals(frames[1])
    assert frames[0].groupby("trial").ngroups == 4
    with pytest.raises(ValueError, match="join: needs a run_dir"):
        library.run(record.base, axes, seeds, join=True)


def started(argv):
    command = [sys.executable, str(SCRIPT), *argv]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@contextlib.contextmanager
def in_the_end_killed(*processes):
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def wait_for(what, process):
    for _ in range(1800):
        with contextlib.suppress(OSError):
            if found := what():
                return found
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise TimeoutError(what)


@pytest.mark.slow
@pytest.mark.parametrize("env", ["probes:RewardByAction", "host_probes:RewardByAction"])
def test_what_a_killed_process_had_claimed_is_trained_by_the_other(tmp_path, env):
    """One is stopped while it holds a batch, or a trial: the other trains all else, and waits. Then
    it is killed: the other trains that, too, and the table is that of a sweep by one process."""
    short = env.startswith("host")
    steps = "160" if short else "80000"
    flags = [*SMALL, "--env", env, "--total-timesteps", steps, "--log-format", "plain"]
    flags += ["--max-parallel", "1"] * short
    alone, folder = tmp_path / "alone", tmp_path / "sweep"
    whole = started([*flags, "--run-dir", str(alone)])
    _, error = whole.communicate(timeout=240)
    assert whole.returncode == 0, error
    one = started([*flags, "--join", str(folder)])
    with in_the_end_killed(one):
        claimed = wait_for(lambda: os.listdir(folder / parts.FOLDER / "claims"), one)
        one.send_signal(signal.SIGSTOP)
        other = started(["--join", str(folder)])
        with in_the_end_killed(other):
            lines = iter(other.stdout.readline, "")
            waiting = next(line for line in lines if line.startswith("waiting for"))
            held = os.listdir(folder / parts.FOLDER / "claims")
            assert len(held) in ((1,) if short else (2, 4))
            assert f"waiting for {len(held)} trials of others" in waiting
            assert set(claimed) <= set(held)
            assert other.poll() is None
            one.kill()
            begun = time.monotonic()
            out, error = other.communicate(timeout=240)
            assert other.returncode == 0, error
            assert time.monotonic() - begun < 60  # SILENT: by its lock, and not by its silence
            assert "12 of 12 trials" in out
    if short:  # one after another in another order
        lines = [sorted(table(x).splitlines()) for x in (alone, folder)]
        assert len(lines[0]) == len(lines[1])
        assert [x.split(b",")[:8] for x in lines[0]] == [x.split(b",")[:8] for x in lines[1]]
    else:
        assert table(folder) == table(alone)
    assert not (folder / parts.FOLDER).exists()


@pytest.mark.slow
def test_one_that_is_interrupted_gives_its_claims_to_the_other(tmp_path):
    flags = [*SMALL, "--total-timesteps", "160000"]
    folder = tmp_path / "sweep"
    one = started([*flags, "--join", str(folder)])
    with in_the_end_killed(one):
        wait_for(lambda: os.listdir(folder / parts.FOLDER / "claims"), one)
        one.send_signal(signal.SIGINT)
        out, _ = one.communicate(timeout=60)
        assert one.returncode == 130
        assert f"continue with: --join {folder}" in out
        assert os.listdir(folder / parts.FOLDER / "claims") == []
    other = started(["--join", str(folder)])
    with in_the_end_killed(other):
        out, error = other.communicate(timeout=240)
    assert other.returncode == 0, error
    assert library.read(folder).groupby("trial").ngroups == 12
    assert joining.is_done(folder / "sweep.json")
