"""Runs as processes of experiments/a2c.py, to be disturbed and compared with undisturbed ones."""

import functools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rljax.loggers import tables
from rljax.runs import checkpoints

HERE = Path(__file__).parent
SCRIPT = HERE.parents[1] / "experiments" / "a2c.py"
TIMES = {"wall_seconds", "compile_seconds", "steps_per_second"}
SHORT, LONG = 400_000, 4_000_000
"""Environment steps of a seed."""


class Place:
    """A folder with runs in it, and a cache of compiled programs that they share."""

    def __init__(self, folder):
        cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
        self.environ = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "true", **cache}
        self.folder, self.processes = folder, []

    @functools.cache  # noqa: B019  one place for all tests
    def undisturbed(self, total=SHORT):
        """A run that nothing happened to."""
        run_dir = self.folder / f"undisturbed-{total}"
        assert self.launch(*flags(run_dir, total)).wait(600) == 0, "the undisturbed run failed"
        return run_dir

    @functools.cache  # noqa: B019
    def interrupted(self):
        """A run stopped by SIGTERM after its first evaluation, so that all files are there."""
        run_dir = self.folder / "interrupted"
        process = self.launch(*flags(run_dir))
        wait_for(lambda: count_rows(run_dir / "evaluations.csv") > 0, process)
        process.terminate()
        assert process.wait(600) == 143, "SIGTERM did not end the run in order"
        last = checkpoints.folder(run_dir, newest(run_dir))
        assert (last / "best.safetensors").exists(), "there is no best checkpoint"
        return run_dir

    def copy(self, name):
        """A copy of the interrupted run, to be damaged."""
        return Path(shutil.copytree(self.interrupted(), self.folder / name))

    def launch(self, *argv, before=()):
        """The script as a process."""
        command = [sys.executable, *before, SCRIPT, *argv]
        self.processes.append(subprocess.Popen(list(map(str, command)), env=self.environ))
        return self.processes[-1]

    def kill_all(self):
        """Ends what a test that failed has left."""
        for process in self.processes:
            process.kill()
            process.wait()

    def begin_or_resume(self, run_dir, total=SHORT, before=()):
        """The script as a process, on a run that may have begun."""
        has_begun = (run_dir / "config.json").exists()
        argv = ("--resume", run_dir, "--quiet") if has_begun else flags(run_dir, total)
        return self.launch(*argv, before=before)

    def resume(self, *run_dirs):
        """[(exit status, stderr)] of runs that are resumed."""
        command = [sys.executable, HERE / "resume_all.py", *run_dirs]
        done = subprocess.run(
            command, env=self.environ, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def flags(run_dir, total=SHORT):
    """Of a run of two seeds with ten evaluations and forty checkpoints."""
    return [
        *("--run-dir", run_dir, "--num-seeds", 2, "--total-timesteps", total),
        *("--eval-every", total // 10, "--checkpoint-every", total // 40),
        *("--eval-episodes", 20, "--device", "cpu", "--quiet"),
    ]


def wait_for(condition, process):
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, f"the run ended early, status {process.returncode}"
        assert time.monotonic() < deadline, "the run does not get there"
        time.sleep(0.01)


def count_rows(path):
    return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0


def newest(run_dir):
    """Environment steps of its newest checkpoint."""
    return max(checkpoints.existing(run_dir), default=-1)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def flip(path):
    """One bit at a random place."""
    data = bytearray(path.read_bytes())
    place = random.randrange(8 * len(data))
    data[place // 8] ^= 1 << place % 8
    path.write_bytes(data)


def check_same(run_dir, whole):
    """That two runs ended with the same bits, but for fields of time."""
    for ours, theirs in zip(_results(run_dir), _results(whole)):
        assert ours == theirs, f"{run_dir.name} is not as the undisturbed run: {str(ours)[:99]}"


def _results(run_dir):
    summary = json.loads((run_dir / "summary.json").read_text())
    yield {name: value for name, value in summary.items() if name not in TIMES}
    yield tables.read_metrics(run_dir).drop(columns=TIMES & set(tables.METRICS)).to_csv()
    yield (run_dir / "evaluations.csv").read_text()
    last = checkpoints.folder(run_dir, newest(run_dir))
    yield last.name
    yield {path.name: path.read_bytes() for path in last.glob("*.safetensors")}


def contents(folder):
    """All bytes."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path: path.read_bytes() for path in found}
