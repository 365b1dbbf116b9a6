"""Sweeps on Ray: real clusters of several nodes in this machine, and nodes that are killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import ray_cluster
from ray_cluster import wait_until

from rljax import sweep
from rljax.config import Config, WorkerConfig
from rljax.search import searching
from rljax.sweep import ray_tasks, running
from rljax.sweep.options import SweepOptions

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "experiments" / "sweep.py"
AXES = {"learning_rate": [0.001, 0.01], "num_steps": [4, 8]}
BASE = Config(env="probes:RewardByAction", total_timesteps=2000, num_envs=4, hidden_sizes=(8,))
ONE_BY_ONE = Config(
    env="host_probes:RewardByAction", total_timesteps=400, num_envs=1, hidden_sizes=(8,)
)
ALGORITHMS = {
    "batches": (BASE, "a2c", None),
    "python": (ONE_BY_ONE, "a2c", None),
    "a3c": (ONE_BY_ONE, "a3c", WorkerConfig(num_workers=2, lockstep=True)),
}


@pytest.fixture(scope="module")
def address():
    """Of a cluster of two nodes that no test harms."""
    with ray_cluster.running(1, 1) as made:
        yield made.address


def table(base, algorithm, own, **options):
    found = sweep.run(base, AXES, range(2), algorithm=algorithm, own=own, **options)
    return found.sort_values(["trial", "env_steps"]).reset_index(drop=True)


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_the_table_is_that_of_a_local_sweep(address, kind):
    there = table(*ALGORITHMS[kind], engine="ray", ray_address=address)
    here = table(*ALGORITHMS[kind])
    assert here["trial"].nunique() == 8
    assert there.equals(here)


def test_a_trial_that_fails_is_told_and_leaves_the_others_alone(address):
    base = Config(env="ray_probes:Raising", total_timesteps=400, num_envs=1, hidden_sizes=(8,))
    groups = sweep.plan(base, [{"num_steps": 4}, {"num_steps": 8}], [0])
    how = SweepOptions(engine="ray", ray_address=address, eval_episodes=0, quiet=True)
    with running.engine(groups, how) as train:
        steps = list(train(groups, how))
    failures = [step.failure for step in steps if step.failure]
    assert sorted(failure.trial.number for failure in failures) == [0, 1]
    assert all("the simulator is out of fuel" in failure.why for failure in failures)


def start(run_dir, address, *flags):
    axes = "--axis learning_rate=0.001,0.003,0.01 --num-seeds 3 --quiet".split()
    env = "--env host_probes:Slow --preset none --total-timesteps 2000 --eval-episodes 0".split()
    where = ["--engine", "ray", "--ray-address", address, "--run-dir", run_dir]
    return subprocess.Popen([sys.executable, SCRIPT, *env, *axes, *where, *flags])


def finished(run_dir):
    path = run_dir / "finished.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def test_a_lost_node_costs_its_trials_in_flight_which_are_trained_elsewhere(tmp_path):
    with ray_cluster.running(1, 1, 1) as cluster:
        process = start(tmp_path / "run", cluster.address)
        wait_until(lambda: finished(tmp_path / "run") >= 2, 120)
        ray_cluster.kill_node(cluster.raylets[2])
        assert process.wait(300) == 0
    summary = json.loads((tmp_path / "run" / "sweep.json").read_bytes())
    assert summary["status"] == "completed"
    assert (summary["agents_finished"], summary["agents_failed"]) == (9, 0)


def test_a_killed_sweep_is_resumed_with_either_engine(address, tmp_path):
    process = start(tmp_path / "run", address)
    wait_until(lambda: finished(tmp_path / "run") >= 2, 120)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not ray_cluster.actors("do"))  # no task outlives it
    command = [sys.executable, SCRIPT, "--resume", tmp_path / "run", "--engine", "local", "--quiet"]
    subprocess.run([*command, "--ray-address", "None"], check=True, env=os.environ)
    summary = json.loads((tmp_path / "run" / "sweep.json").read_bytes())
    assert summary["agents_finished"] == 9


def test_a_nodes_other_version_is_told(address, monkeypatch):
    others = ray_tasks.nodes.origin()
    others = others._replace(versions={**others.versions, "JAX": "0.1.2"})
    monkeypatch.setattr(ray_tasks.nodes, "origin", lambda: others)
    with pytest.raises(RuntimeError, match=r"its node has JAX [\d.]+, not 0.1.2 as") as caught:
        table(*ALGORITHMS["batches"], engine="ray", ray_address=address)
    assert "\n" not in str(caught.value)


def test_a_search_is_trained_on_this_machine():
    with pytest.raises(ValueError, match="engine = 'ray': a search is trained by this machine"):
        searching.search(BASE, {"gamma": [0.9, 0.99]}, 100_000, engine="ray")
