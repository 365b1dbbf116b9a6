"""Several processes on the loopback that train as one, and their deaths."""

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from host_processes import (
    EXPERIMENTS,
    finish,
    free_port,
    in_the_end_killed,
    start,
    told_on,
    wait_for,
)

import rljax
from rljax.runs import checkpoints, directory

pytestmark = pytest.mark.slow

FLAGS = (
    "--env CartPole-v1 --preset none --num-envs 12 --hidden-sizes 8 --eval-episodes 2"
    " --log-format plain --devices 1 --checkpoint-every 6000 --num-seeds"
).split()
LONG = ["--total-timesteps", "60000"]


def wait_for_checkpoints(run_dir, number, processes):
    wait_for(lambda: len(checkpoints.existing(run_dir)) >= number, processes)


def states(run_dir):
    return checkpoints.newest(run_dir)[1]["state"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A seed, whose environments two processes share, to its end."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    told = finish(2, [*FLAGS, "1", *LONG, "--run-dir", str(run_dir)])
    assert f"run directory: {run_dir}" in told[0][0]
    assert "run directory" not in told[1][0]
    return run_dir


def test_process_0_writes_what_one_host_loads(whole):
    run = rljax.load(whole)
    assert run.status == "completed"
    assert run.env_steps == [60_000]
    assert len(run.metrics) >= 50
    assert run.policy()(np.zeros(4), jax.random.key(0)) in (0, 1)
    assert run.evaluate(2)["episodes"] == 2
    assert directory.read_record(whole)["device"] == "cpu, 2 processes x 1 device"


@pytest.mark.parametrize("dead", [1, 0])
def test_a_death_ends_all_and_the_run_is_resumed_to_the_same_bits(whole, tmp_path, dead):
    """Within 15 s, with a line that names the process."""
    run_dir = tmp_path / "run"
    processes = start(2, [*FLAGS, "1", *LONG, "--run-dir", str(run_dir)])
    with in_the_end_killed(processes):
        wait_for_checkpoints(run_dir, 3, processes)
        processes[dead].kill()
        begun, other = time.monotonic(), processes[1 - dead]
        _, error = other.communicate(timeout=60)
        assert time.monotonic() - begun < 15
    assert other.returncode == 1
    assert told_on(error) == [f"error: process {dead} of 2 has ended"]
    finish(2, ["--resume", str(run_dir)])
    found, expected = states(run_dir), states(whole)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_a_signal_to_one_ends_all_in_order(whole, tmp_path):
    run_dir = tmp_path / "run"
    processes = start(2, [*FLAGS, "1", *LONG, "--run-dir", str(run_dir)])
    with in_the_end_killed(processes):
        wait_for_checkpoints(run_dir, 2, processes)
        processes[1].send_signal(signal.SIGTERM)
        told = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [143, 143], told
    assert rljax.load(run_dir).status == "interrupted"
    with pytest.warns(UserWarning, match="2 processes x 1 device -> cpu, 1 process x 1 device"):
        resumed = rljax.resume(run_dir, devices=1, quiet=True)  # on one host, to rounding
    assert resumed.status == "completed"


@pytest.mark.parametrize(("num_seeds", "processes"), [(1, 2), (4, 2), (3, 3)])
def test_several_processes_train_as_one_does_but_for_rounding(tmp_path, num_seeds, processes):
    """Seeds are spread over all devices of all; the environments of fewer seeds are."""
    flags = [*FLAGS, str(num_seeds), "--num-steps", "4", "--total-timesteps", "480"]
    finish(processes, [*flags, "--run-dir", str(tmp_path / "run")])
    how = dict(preset="none", num_envs=12, hidden_sizes=(8,), num_steps=4, total_timesteps=480)
    one = rljax.train("a2c", "CartPole-v1", num_seeds=num_seeds, quiet=True, devices=1, **how)
    found = rljax.load(tmp_path / "run")
    assert found.metrics["updates"].max() == 10
    for x, y in zip(jax.tree.leaves(found.state), jax.tree.leaves(one.state)):
        np.testing.assert_allclose(x, y, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["1", "--num-envs", "5"], "num_envs = 5: must be a multiple of 2, those that share"),
        (["1", "--run-dir", "{taken}"], "is not empty"),
    ],
)
def test_bad_input_ends_all(tmp_path, flags, message):
    (tmp_path / "thesis.tex").touch()
    flags = [flag.format(taken=tmp_path) for flag in flags]
    processes = start(2, [*FLAGS, *flags])
    with in_the_end_killed(processes):
        for process in processes:
            _, error = process.communicate(timeout=90)
            assert process.returncode == 2
            (line,) = told_on(error)
            assert message in line


SLURM = dict(
    SLURM_JOB_ID="77", SLURM_STEP_NODELIST="localhost", SLURM_NTASKS="2", SLURM_PROCID="{}"
)
OPEN_MPI = dict(
    OMPI_MCA_orte_hnp_uri="1531576320.0;tcp://127.0.0.1:34911",
    OMPI_COMM_WORLD_SIZE="2",
    OMPI_COMM_WORLD_RANK="{}",
)


@pytest.mark.parametrize(
    "variables",
    [dict(SLURM, SLURM_LOCALID="{}"), dict(OPEN_MPI, OMPI_COMM_WORLD_LOCAL_RANK="{}")],
    ids=["slurm", "open mpi"],
)
def test_a_cluster_tells_jax_who_the_processes_are(tmp_path, variables):
    run_dir = tmp_path / "run"
    flags = [*FLAGS, "2", "--total-timesteps", "600", "--coordinator", "auto", "--run-dir"]
    processes = []
    for i in range(2):
        told = {name: text.format(i) for name, text in variables.items()}
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", **told}
        command = [sys.executable, str(EXPERIMENTS / "a2c.py"), *flags, str(run_dir)]
        how = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(subprocess.Popen(command, env=environment, **how))
    with in_the_end_killed(processes):
        told = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert directory.read_record(run_dir)["device"] == "cpu, 2 processes x 1 device"


IMPATIENT = """
import sys
from rljax.cli import training
from rljax.utils import coordination, hosts
hosts.CONNECT, coordination.LINGER = 2, 0
sys.exit(training.main("a2c", "Trains.", sys.argv[1:]))
"""


def test_a_process_that_waits_for_the_others_in_vain():
    address = f"127.0.0.1:{free_port()}"
    flags = [*FLAGS, "1", "--coordinator", address, "--num-processes", "2", "--process-id", "0"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", IMPATIENT, *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    why = f"coordinator = '{address}': the other processes did not come"
    assert done.stderr == f"error: {why}\n"
