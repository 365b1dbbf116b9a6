"""A3C on Ray: real clusters of several nodes in this machine, real signals."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
import ray_cluster
import ray_network
import small_a3c
from ray_cluster import actors, wait_until
from small_a3c import SMALL

import rljax
from rljax import a3c, evaluation
from rljax.a3c import holder, ray_relays
from rljax.config import WorkerConfig
from rljax.loggers import tables
from rljax.utils import cluster, forkserver, nodes, seeds

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "experiments" / "a3c.py"
CONFIG = dataclasses.replace(small_a3c.CONFIG, env="ray_probes:OnCpu", total_timesteps=80_000)
WORKERS = WorkerConfig(num_workers=2)


@pytest.fixture
def harmed():
    """A cluster of a node with one CPU, the driver's, and two others."""
    with ray_cluster.running(1, 1, 1) as made:
        yield made


@pytest.fixture(scope="module")
def address():
    """Of a cluster of two nodes that no test harms."""
    with ray_cluster.running(1, 1) as made:
        yield made.address


def train(run_dir, address, env="probes:RewardByAction", **told):
    told = {**SMALL, "engine": "ray", "ray_address": address, **told}
    return rljax.train("a3c", env, **told, run_dir=run_dir)


def rows_without_times(run_dir):
    return tables.read_metrics(run_dir).drop(columns=["wall_seconds", "steps_per_second"])


# As with local processes


@pytest.mark.parametrize("env", ["probes:RewardByAction", "host_probes:RewardByAction"])
def test_it_is_the_run_of_local_workers(address, tmp_path, env):
    """In lockstep to the bit; one worker is on the holder's node, the other on another one."""
    told = dict(lockstep=True, num_seeds=2, seed=5, eval_every=1000)
    here = train(tmp_path / "ray", address, env, **told)
    there = train(tmp_path / "local", None, env, **told, engine="local")
    jax.tree.map(np.testing.assert_array_equal, here.state, there.state)
    assert rows_without_times(here.run_dir).equals(rows_without_times(there.run_dir))
    counts = ("gradients_applied", "gradients_rejected", "worker_restarts", "staleness")
    assert {n: here.summary[n] for n in counts} == {n: there.summary[n] for n in counts}
    assert here.summary["final_return"]["per_seed"] == [1.0, 1.0]


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_it_is_resumed_with_either_engine(address, tmp_path, engine):
    told = dict(lockstep=True, checkpoint_every=400)
    whole = train(tmp_path / "whole", address, **told)
    rows = []

    def stop(row):
        rows.append(row)
        return "stop" if len(rows) == 50 else None

    part = train(tmp_path / "part", address, **told, on_log=stop)
    assert part.status == "stopped"
    changes = dict(engine=engine, ray_address=address if engine == "ray" else None)
    run = rljax.resume(part.run_dir, **changes, quiet=True)
    assert run.status == "completed"
    jax.tree.map(np.testing.assert_array_equal, run.state, whole.state)


# Faults


class Disturbed:
    """A run that is disturbed once, after some gradients, and what became of it."""

    def __init__(self, address, disturb, monkeypatch, config=CONFIG):
        self.told, self.statuses, pushes, push = [], [], [], holder.ParameterHolder.push

        def noted_push(held, message, worker):
            pushed = push(held, message, worker)
            pushes.append(pushed[0]["actor"].tobytes())  # whose key is another in each rollout
            return pushed

        monkeypatch.setattr(holder.ParameterHolder, "push", noted_push)
        where = dict(engine="ray", ray_address=address, watch=self.statuses.append)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda text, *_: self.told.append(str(text))
            is_disturbed = False
            chunks = a3c.chunks(config, WORKERS, seeds.keys([0]), **where)
            for states, metrics in chunks:  # noqa: B007  the last ones count
                ready = all(s.state == "working" for s in self.statuses[-1].workers)
                if not is_disturbed and ready and metrics.updates[0] > 1000:
                    disturb()
                    is_disturbed = True
        assert is_disturbed
        self.state, self.metrics = seeds.take((states, metrics), 0)
        counts = self.state.counts
        assert counts.applied == counts.staleness.sum() == config.num_updates
        assert counts.stale == counts.not_finite == counts.malformed == 0
        assert len(pushes) == len(set(pushes)) == config.num_updates  # each once
        total = sum(status.steps for status in self.statuses[-1].workers)
        assert total == config.total_timesteps
        learners = jax.tree.map(lambda x: np.asarray(x)[None], self.state.learner)
        keys = jax.random.split(jax.random.key(1), 1)
        evaluated = evaluation.evaluate(config, learners, keys, 10, greedy=True)
        assert evaluated.returns.tolist() == [[1.0] * 10]
        wait_until(lambda: not actors("Worker") and not actors("Relay"))


def kill(pids):
    os.kill(max(pids), signal.SIGKILL)


def test_a_killed_worker_is_replaced(harmed, monkeypatch):
    run = Disturbed(harmed.address, lambda: kill(actors("Worker")), monkeypatch)
    assert run.state.counts.restarts == 1
    assert len(run.told) == 1
    assert "died: its connection ended; started again where its last gradient left" in run.told[0]


def test_a_killed_relay_is_replaced_and_costs_no_worker(harmed, monkeypatch):
    brought = []
    bring_to = ray_relays.NodeParameters.bring_to

    def noted(self, node, number=1):
        brought.append(node)
        return bring_to(self, node, number)

    monkeypatch.setattr(ray_relays.NodeParameters, "bring_to", noted)
    run = Disturbed(harmed.address, lambda: kill(actors("Relay")), monkeypatch)
    assert run.state.counts.restarts == 0
    assert not run.told
    assert len(brought) == 2
    assert brought[0] == brought[1]


def test_a_killed_nodes_worker_is_started_on_another(harmed, monkeypatch):
    def disturb():
        (lost,) = set(actors("Worker").values()) - {harmed.raylets[0]}
        ray_cluster.kill_node(lost)

    run = Disturbed(harmed.address, disturb, monkeypatch)
    assert run.state.counts.restarts == 1
    assert len(run.told) == 1


def test_a_killed_raylets_worker_is_started_on_another(harmed, monkeypatch):
    """The actor goes on until Ray finds the node dead, which takes longer than a short run."""
    config = dataclasses.replace(CONFIG, total_timesteps=400_000)

    def disturb():
        kill(set(actors("Worker").values()) - {harmed.raylets[0]})

    run = Disturbed(harmed.address, disturb, monkeypatch, config)
    assert run.state.counts.restarts == len(run.told) <= 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_actor_outlives_the_main_process(address, tmp_path, number):
    flags = (
        "--preset none --total-timesteps 100000000 --num-steps 4 --num-workers 2 --quiet".split()
    )
    where = ["--engine", "ray", "--ray-address", address, "--run-dir", tmp_path / "run"]
    env = ["--env", "host_probes:RewardByAction", "--log-interval", "100"]
    process = subprocess.Popen([sys.executable, SCRIPT, *flags, *where, *env])
    metrics = tmp_path / "run" / "metrics.csv"
    wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") > 2, 60)
    assert len(actors("Worker")) == 2
    process.send_signal(number)
    assert process.wait(30) == (-9 if number == signal.SIGKILL else 143)
    wait_until(lambda: not actors("Worker") and not actors("Relay"))


def test_a_network_cut_for_20_seconds_costs_nothing(tmp_path):
    """Between two machines; the worker on the other one goes on where it was."""
    flags = "--preset none --total-timesteps 400000 --num-steps 4 --learning-rate 0.01 --quiet"
    env = "--env host_probes:RewardByAction --num-workers 2 --num-seeds 1"
    where = ["--engine", "ray", "--ray-address", ray_network.HEAD, "--run-dir", tmp_path / "run"]
    metrics = tmp_path / "run" / "metrics.csv"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(ray_network.two_machines())
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces are not allowed here: {error}")
        stack.enter_context(ray_network.ray_on_both())
        command = [sys.executable, SCRIPT, *flags.split(), *env.split(), *where]
        run = ray_network.run_on_first(*command)
        stack.callback(run.kill)
        wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") > 2, 60)
        before = metrics.read_text().count("\n")
        ray_network.plug(False)
        time.sleep(20)
        ray_network.plug(True)
        assert metrics.read_text().count("\n") > before + 2  # the worker beside the holder went on
        assert run.wait(300) == 0
    summary = rljax.load(tmp_path / "run").summary
    assert summary["status"] == "completed"
    assert summary["gradients_applied"] == 100_000
    assert summary["gradients_rejected"] == summary["worker_restarts"] == 0
    assert summary["final_return"]["per_seed"] == [1.0]


def test_a_worker_that_dies_again_and_again_ends_the_run(address, tmp_path):
    with pytest.raises(a3c.WorkerError) as caught, pytest.warns(UserWarning, match="started again"):
        train(tmp_path / "run", address, "host_probes:Dying", max_worker_restarts=1)
    error = str(caught.value)
    assert "died: its connection ended after 0 steps in host_probes:Dying" in error
    assert "Traceback" not in error
    assert rljax.load(tmp_path / "run").status == "failed"


def test_an_exception_in_an_environment_is_told_with_its_traceback(address, tmp_path):
    with pytest.raises(a3c.WorkerError) as caught:
        train(tmp_path / "run", address, "ray_probes:Raising")
    text = str(caught.value)
    assert text.count("Traceback (most recent call last)") == 1
    assert text.count("RuntimeError: the simulator is out of fuel") == 1
    assert rljax.load(tmp_path / "run").env_steps[0] > 10 * 4


# Bad input


def test_an_environment_that_only_actors_cannot_make(address, tmp_path):
    with pytest.raises(forkserver.RefusedError) as caught:
        train(tmp_path / "run", address, "ray_probes:NotInActors")
    error = str(caught.value)
    assert error.count("there is no simulator on this machine") == 1
    assert "\n" not in error
    assert not (tmp_path / "run").exists()


def test_another_version_on_a_node(address, tmp_path, monkeypatch):
    others = {**nodes.versions(), "JAX": "0.1.2"}
    monkeypatch.setattr(nodes, "versions", lambda: others)
    with pytest.raises(
        forkserver.RefusedError, match=r"has JAX [\d.]+, not 0.1.2 as the main"
    ) as caught:
        train(tmp_path / "run", address)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_object_that_cannot_be_sent_is_named(address, tmp_path):
    config = dataclasses.replace(CONFIG, env=holding_a_lock())
    chunks = a3c.chunks(config, WORKERS, seeds.keys([0]), engine="ray", ray_address=address)
    with pytest.raises(TypeError, match=r"name it as 'package\.module:attribute'") as caught:
        list(chunks)
    assert "\n" not in str(caught.value)


def holding_a_lock():
    import host_probes

    lock = threading.Lock()

    def make():
        lock.acquire(blocking=False)
        return host_probes.RewardByAction()

    return make


def test_more_workers_than_cpus(address, tmp_path):
    what = "num_workers = 3: the Ray cluster has 2 CPUs, one is needed for each"
    with pytest.raises(ValueError, match=what):
        train(tmp_path / "run", address, num_workers=3)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("localhost:1", r"ray_address = 'localhost:1' .*: nobody answers there"),
        ("192.0.2.77:6379", r"ray_address = '192.0.2.77:6379': nobody answers there"),
        ("nonsense", "ray_address = 'nonsense': must be host:port or 'auto'"),
        ("ray://host:10001", "must be host:port of a cluster that this machine belongs to"),
    ],
)
def test_an_address_nobody_answers_at(tmp_path, given, message):
    begun = time.monotonic()
    with pytest.raises(ValueError, match=message) as caught:
        train(tmp_path / "run", given)
    assert time.monotonic() - begun < 15
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_no_cluster_on_this_machine(monkeypatch):
    from ray._private import services

    def none(*given):
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(services, "get_ray_address_from_environment", none)
    with (
        pytest.raises(ValueError, match="ray_address = 'auto': no cluster runs on this machine"),
        cluster.connected("auto", 1, "this"),
    ):
        pass


def test_a_cluster_of_its_own(tmp_path, monkeypatch):
    """Without an address, and with none that runs, a run starts one and ends it."""
    from ray._private import services

    def handlers():
        return [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    before = handlers()
    monkeypatch.setattr(services, "get_ray_address_from_environment", lambda *given: None)
    run = train(tmp_path / "run", None)
    assert run.status == "completed"
    assert run.summary["final_return"]["per_seed"] == [1.0]
    import ray

    assert not ray.is_initialized()
    assert handlers() == before
