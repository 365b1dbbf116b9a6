"""Does to runs what computers do to them, and compares what comes out with an undisturbed run.

python experiments/chaos.py
python experiments/chaos.py --faults kill damage --kills 100

kill        kill -9 at random moments of one run, resumed each time
write       the same in the middle of writing a checkpoint, which is slowed for that
damage      every file of the newest checkpoint truncated, emptied, deleted, one bit flipped; then
            one bit at random places of all files
none        the same to all checkpoints: nothing whole is left
disk        a small file system that is full for a checkpoint, and for a row of metrics
two         a second process resumes a run at work, which is then killed and resumed
copy        the run directory is copied elsewhere and resumed there

All must end with the same bits: parameters and the rest of the state, every row of metrics.csv
and evaluations.csv, and the summary, but for the fields of time.
"""

import contextlib
import dataclasses
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

import a2c
import flags

from rljax.loggers import tables
from rljax.runs import checkpoints

SCRIPT = Path(__file__).parent / "a2c.py"
FAULTS = ("kill", "write", "damage", "none", "disk", "two", "copy")
TIMES = {"wall_seconds", "compile_seconds", "steps_per_second"}
SLOW_WRITES = """
import os, sys, time
sys.path.insert(0, os.path.dirname(sys.argv[1]))
import a2c
from rljax.utils import atomic_io

class SlowFile(type(open(os.devnull, "wb", buffering=0))):
    def write(self, data):
        half = len(data) // 2
        return super().write(data[:half]) + (time.sleep(0.2), super().write(data[half:]))[1]

def slow_open(path, mode="r", **options):
    return SlowFile(path, "w") if mode == "wb" else open(path, mode, **options)

atomic_io.open = slow_open
sys.exit(a2c.main(sys.argv[2:]))
"""


class NotSurvivedError(Exception):
    """A fault was not survived; the message says how."""


@dataclasses.dataclass(frozen=True)
class Options:
    faults: tuple[Literal[FAULTS], ...] = FAULTS
    """What to do."""
    kills: int = 25
    """Kills of the run in 'kill'."""
    write_kills: int = 5
    """Kills of the run in 'write'."""
    flips: int = 100
    """Bits flipped at random places in 'damage'."""
    total_timesteps: int = 12_000_000
    """Length of the long run, which is killed; the others are a thirtieth of it."""
    seed: int = 0
    """Of the random moments and places."""


def main(argv: list[str]) -> int:
    """Runs; returns the exit status."""
    try:
        options = flags.parse_options(Options, __doc__.splitlines()[0], argv)
    except ValueError as error:
        return flags.fail(error)
    random.seed(options.seed)
    survived = True
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), options)
        for fault in options.faults:
            started = time.perf_counter()
            try:
                said = globals()[f"survive_{fault}"](place)
            except NotSurvivedError as error:
                survived, said = False, f"NOT SURVIVED: {error}"
            print(f"{fault:8}{said} ({time.perf_counter() - started:.0f} s)", flush=True)
    return 0 if survived else 1


@dataclasses.dataclass(frozen=True)
class Place:
    """Where it happens."""

    folder: Path
    options: Options

    def flags(self, run_dir, long=False):
        """Of a run of two seeds with ten evaluations and forty checkpoints."""
        total = self.options.total_timesteps // (1 if long else 30)
        return [
            *("--run-dir", str(run_dir), "--num-seeds", "2", "--total-timesteps", str(total)),
            *("--eval-every", str(total // 10), "--checkpoint-every", str(total // 40)),
            *("--eval-episodes", "20", "--device", "cpu", "--quiet"),
        ]

    def undisturbed(self, long=False):
        """A run that nothing happened to."""
        run_dir = self.folder / ("undisturbed-long" if long else "undisturbed")
        if not run_dir.exists() and launch(self.flags(run_dir, long)).wait():
            raise NotSurvivedError("the undisturbed run failed")
        return run_dir

    def interrupted(self):
        """A run stopped by SIGTERM after its first evaluation, so that all files are there."""
        run_dir = self.folder / "interrupted"
        if not run_dir.exists():
            process = launch(self.flags(run_dir))
            wait_for(lambda: (run_dir / "evaluations.csv").exists(), process)
            process.terminate()
            expect(process.wait() == 143, "SIGTERM did not end the run in order")
            last = checkpoints.folder(run_dir, newest(run_dir))
            expect((last / "best.safetensors").exists(), "there is no best checkpoint")
        return run_dir

    def copy(self, name):
        """A copy of the interrupted run, to be damaged."""
        run_dir = self.folder / name
        shutil.rmtree(run_dir, ignore_errors=True)
        return Path(shutil.copytree(self.interrupted(), run_dir))


def survive_kill(place):
    run_dir, whole = place.folder / "killed", place.undisturbed(long=True)
    startup = json.loads((whole / "summary.json").read_text())["compile_seconds"] + 5
    steps = []
    for _ in range(place.options.kills):
        process = launch(again(run_dir) or place.flags(run_dir, long=True))
        wait = random.uniform(0, startup) if random.random() < 0.3 else None
        if wait is None:
            wait_for_work(run_dir, process)
            wait = random.uniform(0, 1.5)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
            raise NotSurvivedError(f"ended by itself after {len(steps)} kills: too short a run")
        process.kill()
        process.wait()
        steps += checkpoints.existing(run_dir)[-1:] or [0]
    expect(launch(again(run_dir)).wait() == 0, "the last resumption failed")
    same(run_dir, whole)
    return f"{len(steps)} kills, the last one at {steps[-1]:,} steps: identical"


def survive_write(place):
    run_dir, whole = place.folder / "write", place.undisturbed()
    for _ in range(place.options.write_kills):
        process = launch(again(run_dir) or place.flags(run_dir), slow=True)
        before = newest(run_dir)
        wait_for(lambda before=before: newest(run_dir) > before, process)
        wait_for(lambda: list((run_dir / "checkpoints").glob(".*.new/*")), process)
        process.kill()
        process.wait()
        left = list((run_dir / "checkpoints").glob(".*.new"))
        expect(left, "the kill came too late")
    expect(launch(again(run_dir)).wait() == 0, "the last resumption failed")
    same(run_dir, whole)
    expect(not list((run_dir / "checkpoints").glob(".*")), "half a checkpoint was left behind")
    return f"{place.options.write_kills} kills in the middle of a checkpoint: identical"


def survive_damage(place):
    whole, count = place.undisturbed(), 0
    last = newest(place.interrupted())
    names = [path.name for path in checkpoints.folder(place.interrupted(), last).iterdir()]
    for name in sorted(names):
        for damage in (truncate, flip, empty, Path.unlink):
            run_dir = place.copy("damaged")
            path = checkpoints.folder(run_dir, last) / name
            damage(path)
            status, err = run(["--resume", str(run_dir), "--quiet"])
            expect(status == 0, f"{damage.__name__} {name}: exit status {status}, {err}")
            expect(str(path) in err, f"{damage.__name__} {name} was not named: {err}")
            same(run_dir, whole)
            count += 1
    run_dir = place.copy("damaged")
    for _ in range(place.options.flips):
        path = random.choice(list(checkpoints.folder(run_dir, last).iterdir()))
        before = path.read_bytes()
        flip(path)
        *_, problems = checkpoints.newest(run_dir)
        expect(len(problems) == 1 and str(path) in problems[0], f"a flipped bit of {path.name}")
        path.write_bytes(before)
    return f"{count} damaged files, each run resumed: identical; {place.options.flips} bits noticed"


def survive_none(place):
    run_dir = place.copy("nothing-whole")
    for env_steps in checkpoints.existing(run_dir):
        flip(checkpoints.folder(run_dir, env_steps) / "state.safetensors")
    before = contents(run_dir)
    status, err = run(["--resume", str(run_dir), "--quiet"])
    expect(status == 2, f"exit status {status}")
    expect("no whole checkpoint" in err and err.count("\n") == 1, err)
    expect(contents(run_dir) == before, "the run directory was changed")
    return "refused in one line, nothing changed"


def survive_disk(place):
    """The small disk is a tmpfs in a mount namespace of its own."""
    whole, said = place.undisturbed(), []
    for what, rows in (("a checkpoint", 1), ("a row", 12)):
        disk, out = place.folder / "disk", place.folder / f"full-{rows}"
        disk.mkdir(exist_ok=True)
        command = [sys.executable, str(SCRIPT), *place.flags(disk / "run")]
        script = f"""
            mount -t tmpfs -o size=4m tmpfs {disk} || exit 77
            "$@" 2> {out}.stderr & pid=$!
            until [ "$(cat {disk}/run/metrics.csv 2> /dev/null | wc -l)" -gt {rows} ]; do
                kill -0 $pid || exit 78; sleep 0.01
            done
            cat /dev/zero > {disk}/filler 2> /dev/null
            wait $pid; status=$?
            rm {disk}/filler; cp -a {disk}/run {out}; exit $status
        """
        namespace = ["unshare", "--user", "--map-root-user", "--mount"]
        status = subprocess.call([*namespace, "sh", "-c", script, "sh", *command])
        if status in (1, 77) and not out.exists():
            return "SKIPPED: mounting a tmpfs is not allowed here"
        err = Path(f"{out}.stderr").read_text()
        expect(status == 1 and "No space left on device" in err, f"status {status}, {err}")
        expect(err.count("\n") == 1, f"more than a line: {err}")
        expect((out / "metrics.csv").read_bytes().endswith(b"\n"), "half a row was left")
        for env_steps in checkpoints.existing(out):
            checkpoints.load(checkpoints.folder(out, env_steps))
        rows_left = len(tables.read_metrics(out))
        expect(run(["--resume", str(out), "--quiet"])[0] == 0, "the resumption failed")
        same(out, whole)
        said.append(f"full for {what}, {rows_left} rows left whole")
    return f"{'; '.join(said)}; resumed: identical"


def survive_two(place):
    run_dir, whole = place.folder / "two", place.undisturbed()
    process = launch(place.flags(run_dir))
    wait_for(lambda: len(checkpoints.existing(run_dir)) > 1, process)
    status, err = run(["--resume", str(run_dir), "--quiet"])
    process.kill()
    process.wait()
    expect(status == 2, f"the second one was not refused: exit status {status}")
    expect(f"in use by process {process.pid}" in err, err)
    expect(run(["--resume", str(run_dir), "--quiet"])[0] == 0, "a dead process blocks the run")
    same(run_dir, whole)
    return "the second was refused; after kill -9 of the first it resumed: identical"


def survive_copy(place):
    run_dir = place.copy("else where")
    expect(run(["--resume", str(run_dir), "--quiet"])[0] == 0, "the resumption failed")
    same(run_dir, place.undisturbed())
    return "resumed elsewhere: identical"


def launch(argv, slow=False):
    """The script as a process."""
    code = ["-c", SLOW_WRITES] if slow else []
    return subprocess.Popen([sys.executable, *code, str(SCRIPT), *argv])


def again(run_dir):
    """The flags to go on with a run, if it ever began."""
    began = (run_dir / "config.json").exists()
    return ["--resume", str(run_dir), "--quiet"] if began else None


def run(argv):
    """(exit status, stderr) of the script within this process, where it is compiled already."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        status = a2c.main(argv)
    return status, err.getvalue()


def wait_for_work(run_dir, process):
    """Until it adds to its metrics."""
    path = run_dir / "metrics.csv"
    resumed = path.exists()
    seen = path.read_bytes() if resumed else b""
    wait_for(
        lambda: path.exists() and len(path.read_bytes()) > 200 and path.read_bytes() != seen,
        process,
    )


def newest(run_dir):
    return max(checkpoints.existing(run_dir), default=-1)


def wait_for(condition, process):
    while not condition():
        expect(process.poll() is None, f"the run ended early, status {process.returncode}")
        time.sleep(0.01)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def flip(path):
    data = bytearray(path.read_bytes())
    place = random.randrange(8 * len(data))
    data[place // 8] ^= 1 << place % 8
    path.write_bytes(data)


def same(run_dir, whole):
    """That two runs ended with the same bits."""
    for ours, theirs in zip(results(run_dir), results(whole)):
        expect(ours == theirs, f"{run_dir.name} is not as the undisturbed run: {str(ours)[:99]}")


def results(run_dir):
    """All that must be the same."""
    summary = json.loads((run_dir / "summary.json").read_text())
    yield {name: value for name, value in summary.items() if name not in TIMES}
    yield tables.read_metrics(run_dir).drop(columns=TIMES & set(tables.METRICS)).to_csv()
    yield (run_dir / "evaluations.csv").read_text()
    last = checkpoints.folder(run_dir, checkpoints.existing(run_dir)[-1])
    yield last.name
    yield {path.name: path.read_bytes() for path in last.glob("*.safetensors")}


def contents(folder):
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path: path.read_bytes() for path in found}


def expect(condition, otherwise):
    if not condition:
        raise NotSurvivedError(otherwise)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
