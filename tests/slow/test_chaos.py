"""Runs survive what computers do to them: what is resumed ends with the bits of an undisturbed run.

With `pytest -m slow -s` each fault prints a row of a table. All runs are processes.
"""

import json
import math
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chaos import (
    HERE,
    LONG,
    SCRIPT,
    Place,
    check_same,
    contents,
    count_rows,
    empty,
    flags,
    flip,
    newest,
    truncate,
    wait_for,
)

from rljax.loggers import tables
from rljax.runs import checkpoints

pytestmark = pytest.mark.slow
KILLS, WRITE_KILLS, FLIPS = 6, 2, 100


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    random.seed(0)
    place = Place(tmp_path_factory.mktemp("chaos"))
    yield place
    place.kill_all()


@pytest.fixture
def row(request):
    """Prints what came of a fault."""
    begun, fault = time.perf_counter(), request.node.name.removeprefix("test_")
    return lambda text: print(f"\n{fault:20}{text} ({time.perf_counter() - begun:.0f} s)", end="")


def test_kill(place, row):
    """kill -9 at random moments of one run, resumed each time."""
    run_dir, whole = place.folder / "killed", place.undisturbed(LONG)
    compiling = json.loads((whole / "summary.json").read_text())["compile_seconds"]
    metrics = run_dir / "metrics.csv"
    for _ in range(KILLS):  # each after a tenth of the run's rows at the latest
        rows = count_rows(metrics) + random.randrange(1, 20)
        in_start = random.random() < 0.3
        deadline = time.monotonic() + (random.uniform(0, compiling + 5) if in_start else math.inf)
        process = place.begin_or_resume(run_dir, LONG)
        wait_for(
            lambda n=rows, t=deadline: count_rows(metrics) > n or time.monotonic() > t, process
        )
        time.sleep(random.uniform(0, 0.1))
        assert process.poll() is None, "ended before it was killed"
        process.kill()
        process.wait()
    last = newest(run_dir)
    assert place.begin_or_resume(run_dir, LONG).wait(600) == 0
    check_same(run_dir, whole)
    row(f"{KILLS} kills, the last one at {last:,} steps: identical")


def test_write(place, row):
    """kill -9 in the middle of writing a checkpoint, which is slowed for that."""
    run_dir, parent = place.folder / "write", place.folder / "write" / "checkpoints"
    for _ in range(WRITE_KILLS):
        process = place.begin_or_resume(run_dir, before=[HERE / "slow_writes.py"])
        before = newest(run_dir)
        wait_for(lambda n=before: newest(run_dir) > n, process)
        wait_for(lambda: list(parent.glob(".*.new/*")), process)
        process.kill()
        process.wait()
        assert list(parent.glob(".*.new")), "the kill came too late"
    assert place.begin_or_resume(run_dir).wait(600) == 0
    check_same(run_dir, place.undisturbed())
    assert not list(parent.glob(".*")), "half a checkpoint was left behind"
    row(f"{WRITE_KILLS} kills in the middle of a checkpoint: identical")


def test_damage(place, row):
    """Every file of the newest checkpoint truncated, emptied, deleted, or with a bit flipped."""
    last, damaged = newest(place.interrupted()), {}
    names = [path.name for path in checkpoints.folder(place.interrupted(), last).iterdir()]
    for name in sorted(names):
        for damage in (truncate, flip, empty, Path.unlink):
            run_dir = place.copy(f"{damage.__name__} {name}")
            damaged[run_dir] = checkpoints.folder(run_dir, last) / name
            damage(damaged[run_dir])
    answers = place.resume(*damaged)
    for (run_dir, path), (status, err) in zip(damaged.items(), answers, strict=True):
        assert status == 0, f"{run_dir.name}: {err}"
        assert str(path) in err, f"{run_dir.name} was not named: {err}"
        check_same(run_dir, place.undisturbed())
    row(f"{len(damaged)} damaged files, each run resumed: identical")


def test_flips(place, row):
    """One bit at a random place of the newest checkpoint, again and again."""
    run_dir = place.copy("flipped")
    paths = sorted(checkpoints.folder(run_dir, newest(run_dir)).iterdir())
    for _ in range(FLIPS):
        path = random.choice(paths)
        before = path.read_bytes()
        flip(path)
        *_, problems = checkpoints.newest(run_dir)
        assert len(problems) == 1
        assert str(path) in problems[0]
        path.write_bytes(before)
    row(f"{FLIPS} bits: noticed each time")


def test_none(place, row):
    """All checkpoints damaged: nothing whole is left."""
    run_dir = place.copy("nothing whole")
    for env_steps in checkpoints.existing(run_dir):
        flip(checkpoints.folder(run_dir, env_steps) / "state.safetensors")
    before = contents(run_dir)
    ((status, err),) = place.resume(run_dir)
    assert status == 2
    assert "no whole checkpoint" in err
    assert err.count("\n") == 1
    assert contents(run_dir) == before, "the run directory was changed"
    row("refused in one line, nothing changed")


@pytest.mark.parametrize(("what", "rows"), [("checkpoint", 1), ("row", 12)])
def test_disk(place, row, what, rows):
    """A small file system, a tmpfs in a mount namespace of its own, that is full for a checkpoint
    or for a row of metrics."""
    disk, out = place.folder / "disk", place.folder / f"full for a {what}"
    disk.mkdir(exist_ok=True)
    script = f"""
        mount -t tmpfs -o size=4m tmpfs '{disk}' || exit 77
        "$@" 2> '{out}.stderr' & pid=$!
        until [ "$(cat '{disk}/run/metrics.csv' 2> /dev/null | wc -l)" -gt {rows} ]; do
            kill -0 $pid || exit 78; sleep 0.01
        done
        cat /dev/zero > '{disk}/filler' 2> /dev/null
        wait $pid; status=$?
        rm '{disk}/filler'; cp -a '{disk}/run' '{out}'; exit $status
    """
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    command += [sys.executable, SCRIPT, *flags(disk / "run")]
    status = subprocess.call(list(map(str, command)), env=place.environ)
    if status in (1, 77) and not out.exists():
        pytest.skip("mounting a tmpfs is not allowed here")
    err = Path(f"{out}.stderr").read_text()
    assert status == 1
    assert "No space left on device" in err
    assert err.count("\n") == 1, err
    assert (out / "metrics.csv").read_bytes().endswith(b"\n"), "half a row was left"
    for env_steps in checkpoints.existing(out):
        checkpoints.load(checkpoints.folder(out, env_steps))
    left = len(tables.read_metrics(out))
    ((status, err),) = place.resume(out)
    assert status == 0, err
    check_same(out, place.undisturbed())
    row(f"{left} rows left whole; resumed: identical")


def test_two(place, row):
    """A second process resumes a run in training, which is then killed and resumed."""
    run_dir = place.folder / "two"
    process = place.launch(*flags(run_dir))
    wait_for(lambda: len(checkpoints.existing(run_dir)) > 1, process)
    process.send_signal(signal.SIGSTOP)  # else it could end before the second one has started
    ((status, err),) = place.resume(run_dir)
    process.kill()
    process.wait()
    assert status == 2
    assert f"in use by process {process.pid}" in err
    ((status, err),) = place.resume(run_dir)
    assert status == 0, err
    check_same(run_dir, place.undisturbed())
    row("the second was refused; after kill -9 of the first it resumed: identical")


def test_copy(place, row):
    """The run directory is copied elsewhere and resumed there."""
    run_dir = place.copy("else where")
    ((status, err),) = place.resume(run_dir)
    assert status == 0, err
    check_same(run_dir, place.undisturbed())
    row("resumed elsewhere: identical")
