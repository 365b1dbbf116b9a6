"""Settings of several processes, and of several devices. Processes are in tests/slow/."""

import socket

import jax
import numpy as np
import pytest

import rljax
from rljax import Config
from rljax.cli import training
from rljax.utils import coordination, hosts, seeds, sharding

TINY = dict(
    env="CartPole-v1", preset="none", num_envs=4, num_steps=3, hidden_sizes=(8,), quiet=True
)


def test_one_process_is_alone():
    with hosts.connected(None):
        assert hosts.count() == 1
        assert hosts.is_first()
        assert hosts.from_first(lambda: 3) == 3
        np.testing.assert_array_equal(hosts.gathered(np.arange(2)), [[0, 1]])
        hosts.raise_if_ended(ValueError())
        assert hosts.leave_ended(5) == 5


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--coordinator here", "coordinator = 'here': must be HOST:PORT, or auto"),
        ("--coordinator here:0", "must be HOST:PORT, or auto"),
        ("--coordinator here:70000", "must be HOST:PORT, or auto"),
        ("--coordinator here:80 --process-id 0", "num_processes: must be given with coordinator"),
        ("--coordinator here:80 --num-processes 2", "process_id: must be given with coordinator"),
        (
            "--coordinator here:80 --num-processes 2 --process-id 2",
            "process_id = 2: must be from 0 to 1",
        ),
        ("--num-processes 2", "num_processes = 2: needs coordinator = HOST:PORT"),
        ("--coordinator auto --process-id 1", "process_id = 1: needs coordinator = HOST:PORT"),
        ("--coordinator auto --render-every 5", "render_every = 5: not with a coordinator"),
        ("--coordinator auto", "coordinator = 'auto': "),
        ("--devices 0", "devices = 0: must be at least 1"),
        ("--devices 3", "devices = 3: must be at most 2, those of kind 'cpu'"),
        (
            "--devices 2 --num-seeds 1 --num-envs 5",
            "num_envs = 5: must be a multiple of 2, those that share the environments of a seed",
        ),
        (
            "--devices 2 --env gymnasium/CartPole-v1",
            "devices: a2c in env = 'gymnasium/CartPole-v1' is not one program",
        ),
    ],
)
def test_bad_input(argv, message, tmp_path, capsys):
    flags = "--env CartPole-v1 --preset none --total-timesteps 100 --run-dir".split()
    argv = [*flags, str(tmp_path / "run"), *argv.split()]
    assert training.main("a2c", "Trains.", argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_algorithms_without_sharded_environments_need_seeds_for_all_devices():
    with sharding.using(2):
        assert seeds.layout(Config(num_envs=3), 2, shards_envs=False) == (2, 1)
        assert seeds.layout(Config(num_envs=4), 1, shards_envs=True) == (1, 2)
        assert seeds.layout(Config(num_envs=3), 5, shards_envs=True) == (2, 1)
        with pytest.raises(ValueError, match="num_seeds = 1: must be at least 2 here, for 1 proc"):
            seeds.layout(Config(), 1, shards_envs=False)
    assert not sharding.is_asked()


def test_devices_that_are_asked_for_share_the_environments_of_a_seed(tmp_path):
    """The same as one device but for rounding, after ten updates; resumed to the same bits."""
    how = dict(TINY, num_seeds=1, total_timesteps=120, eval_episodes=0, log_interval=2)
    one = rljax.train("a2c", devices=1, **how)
    shapes = []

    def look(row):
        shapes.append(len(row.states.actor.obs.sharding.device_set))
        return "stop" if row.metrics[0]["updates"] >= 5 else None

    two = rljax.train("a2c", devices=2, **how)
    cut = rljax.train("a2c", devices=2, run_dir=tmp_path / "run", on_log=look, **how)
    assert cut.status == "stopped"
    assert set(shapes) == {2}
    resumed = rljax.resume(tmp_path / "run")
    for x, y, z in zip(*(jax.tree.leaves(run.state) for run in (one, two, resumed))):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)
        np.testing.assert_array_equal(y, z)


def test_a_port_that_another_program_serves(monkeypatch):
    """The service of a run before is waited for."""
    monkeypatch.setattr(coordination, "LINGER", -5)
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} cannot be served"):
            coordination._await_free(port)
    coordination._await_free(port)


def test_jax_must_not_have_started():
    jax.devices()
    with pytest.raises(ValueError, match=r"coordinator = '127.0.0.1:9': .*must be called before"):
        hosts.connected("127.0.0.1:9", 2, 0).__enter__()


@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid"])
def test_an_address_that_nobody_answers(monkeypatch, host):
    monkeypatch.setattr(hosts, "CONNECT", 0.1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"{host}:{probe.getsockname()[1]}"
    with pytest.raises(ValueError, match=f"coordinator = '{address}': nobody answers"):
        hosts.connected(address, 2, 1).__enter__()
