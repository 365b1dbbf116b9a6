"""Jobs of a cluster that join a sweep."""

import json
import os
import sys
from pathlib import Path

import pytest
from scripts import script

pytest.importorskip("submitit")

SWEEP = (
    "--env probes:RewardByAction --preset none --total-timesteps 1600 --num-envs 4 --num-seeds 2"
    " --hidden-sizes 8 --eval-episodes 4 --max-parallel 2 --axis learning_rate=1e-9,0.02,0.05"
).split()
FAKE = """#!/bin/sh
cp "$1" {folder}/submitted.sh && echo "Submitted batch job 12"
"""


@pytest.fixture(scope="module")
def main():
    return script("sweep_slurm").main


@pytest.mark.slow
def test_local_jobs_train_a_sweep(main, tmp_path, capsys):
    folder, logs = tmp_path / "sweep", tmp_path / "logs"
    own = ["--executor", "local", "--logs", str(logs)]
    assert main([*own, "--", *SWEEP, "--join", str(folder)]) == 0
    assert json.loads((folder / "sweep.json").read_bytes())["agents_finished"] == 6
    printed = [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()]
    assert len(printed) == 2
    told = "".join(Path(path).read_text() for path in printed)
    assert f"run directory: {folder}" in told
    assert main([*own, "--jobs", "1", "--", "--join", str(folder)]) == 0  # nothing is left


def test_what_a_cluster_is_asked_for(main, tmp_path, monkeypatch, capsys):
    """By the commands of Slurm, which are not those here."""
    (tmp_path / "bin").mkdir()
    for name in ("srun", "sbatch"):
        (tmp_path / "bin" / name).write_text(FAKE.format(folder=tmp_path))
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    own = "--jobs 3 --hours 2.5 --cpus 4 --gpus 1 --partition large --logs".split()
    assert main([*own, str(tmp_path / "logs"), "--", *SWEEP, "--join", str(tmp_path / "x")]) == 0
    asked = (tmp_path / "submitted.sh").read_text()
    for line in ("array=0-2", "time=150", "cpus-per-task=4", "gpus-per-node=1", "partition=large"):
        assert f"#SBATCH --{line}" in asked
    assert capsys.readouterr().out.count("job 12_") == 3
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--executor local -- --axis gamma=0.9", "join: must be given after --"),
        ("--executor local", "axis: must be given at least once"),
        ("--jobs 0 -- --join {new} --axis gamma=0.9", "jobs = 0: must be at least 1"),
        ("--executor lokal -- --join {new} --axis gamma=0.9", "lokal"),
        ("--executor local -- --join {new} --axis gama=0.9", "unknown setting 'gama'"),
        ("-- --join {new} --axis gamma=0.9", "executor = 'slurm': Could not detect"),
    ],
)
def test_bad_input(main, tmp_path, monkeypatch, capsys, argv, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    assert main(argv.format(new=tmp_path / "new").split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_submitit_may_be_missing(main, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main(["--", *SWEEP, "--join", str(tmp_path / "new")]) == 2
    assert 'the package submitit is missing: pip install -e ".[slurm]"' in capsys.readouterr().err
