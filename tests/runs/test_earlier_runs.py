"""Runs that an earlier version left are loaded, and resumed to where that version comes."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import rljax
from rljax.runs import checkpoints, directory

EARLIER = Path(__file__).parents[1] / "data" / "earlier_runs"
NAMES = ("a2c", "a3c", "gymnasium")
AFTER = json.loads((EARLIER / "after.json").read_text())
RESUME = """
import sys, rljax
for run_dir in sys.argv[1:]:
    rljax.resume(run_dir, quiet=True)
"""


def has_jax_of_then():
    """Whether the runs were trained with this version of JAX."""
    record, now = directory.read_record(EARLIER / "a2c"), directory.provenance("cpu")
    return all(record["versions"][n] == now["versions"][n] for n in ("jax", "jaxlib"))


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """name: the run, resumed in a process that compiles to a user's bits. "a2c at a row's end" is
    the same run from the checkpoint before."""
    folder = tmp_path_factory.mktemp("runs")
    for name in NAMES:
        shutil.copytree(EARLIER / name, folder / name)
    shutil.copytree(EARLIER / "a2c", folder / "a2c at a row's end")
    shutil.rmtree(checkpoints.folder(folder / "a2c at a row's end", 456))
    flags = [x for x in os.environ.get("XLA_FLAGS", "").split() if "fusion" not in x]
    environ = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags)}
    environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "false"
    runs = sorted(folder.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", RESUME, *runs], env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {path.name: path for path in runs}


@pytest.mark.parametrize("name", NAMES)
def test_an_earlier_run_is_loaded(name):
    run = rljax.load(EARLIER / name)
    assert (run.algorithm, run.seeds) == ("a3c" if name == "a3c" else "a2c", [5, 6])
    assert run.env_steps == {"a2c": [456] * 2, "a3c": [440, 200], "gymnasium": [880, 400]}[name]
    assert run.status == ("interrupted" if name == "a2c" else None)
    obs, best = np.zeros((3, 4), np.float32), rljax.load(EARLIER / name, "best")
    for seed in (5, 6):
        for one in (run, best):
            assert set(map(int, one.policy(seed, greedy=True)(obs))) <= {0, 1}
    assert "loss" not in run.metrics
    assert run.metrics["policy_loss"].notna().all()
    found = run.evaluate(2, max_steps=50)
    assert (len(found["per_seed"]), found["episodes"]) == (2, 2)


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, "a2c at a row's end"])
def test_an_earlier_run_is_resumed_to_its_end(resumed, name):
    run, earlier = rljax.load(resumed[name]), rljax.load(EARLIER / name.split()[0])
    total = earlier.config.total_timesteps
    assert (run.status, run.env_steps) == ("completed", [total, total])
    # Its table keeps its columns, and rows are as far apart as before.
    assert list(run.metrics) == list(earlier.metrics)
    for _, rows in run.metrics.groupby("seed"):
        assert rows["updates"].tolist() == list(range(2, 111, 2))
    evaluations = (resumed[name] / "evaluations.csv").read_bytes()
    assert evaluations.startswith((EARLIER / name.split()[0] / "evaluations.csv").read_bytes())
    record = directory.read_record(resumed[name])
    assert record["run"]["log_interval"] == 2
    assert record["run"]["run_dir"] == name.split()[0]
    assert len(record["resumed"]) == 1


@pytest.mark.slow
@pytest.mark.skipif(not has_jax_of_then(), reason="another JAX")
@pytest.mark.parametrize("name", [*NAMES, "a2c at a row's end"])
def test_an_earlier_run_is_resumed_to_nearly_the_same(resumed, name):
    """Programs have changed since, and XLA rounds otherwise, as it does on other processors; a
    wrong key or state would take other actions."""
    run, first = rljax.load(resumed[name]), name.split()[0]
    newest = checkpoints.existing(run.run_dir)[-1]
    _, trees = checkpoints.load(checkpoints.folder(run.run_dir, newest))
    for leaf, array in safetensors.numpy.load_file(EARLIER / f"after_{first}.safetensors").items():
        np.testing.assert_allclose(trees["state"][leaf], array, rtol=1e-4, atol=1e-6)
    evaluations = (run.run_dir / "evaluations.csv").read_bytes()
    assert AFTER[first] == {
        "evaluations": hashlib.sha256(evaluations).hexdigest(),
        "per_seed": run.summary["final_return"]["per_seed"],
    }
