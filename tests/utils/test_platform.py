"""Devices that JAX does not have, and what a CPU is split into."""

import os
import subprocess
import sys

import jax
import pytest

from rljax import Config, WorkerConfig, a3c
from rljax.utils import platform


def test_jax_without_a_cpu_is_told_in_one_line(monkeypatch):
    """As under JAX_PLATFORMS=cuda, once JAX has started."""

    def devices(kind=None):
        raise RuntimeError(f"Unknown backend {kind}")

    monkeypatch.setattr(jax, "devices", devices)
    told = r"^device = 'cpu': not available here; JAX_PLATFORMS = .* leaves it out: write '.*cpu'$"
    with pytest.raises(ValueError, match=told), platform.computing_on("cpu"):
        pass
    with pytest.raises(ValueError, match=told):
        a3c.init(Config(num_envs=1, total_timesteps=100), WorkerConfig(), jax.random.key(0))
    with pytest.raises(ValueError, match=r"^device = 'gpu': not available here; use 'cpu'$"):
        platform.first_device("gpu")


@pytest.mark.parametrize(
    ("variables", "number", "with_one_to_spare"),
    [
        ({}, 4, 4),  # a run sets one more
        ({"NPROC": "1"}, 1, 1),
        ({"NPROC": "9"}, 4, 4),
        ({"NPROC": "2", "PJRT_NPROC": "3"}, 3, 2),
    ],
)
def test_a_cpu_is_split_into_as_many_devices_as_xla_has_threads(
    variables, number, with_one_to_spare, monkeypatch
):
    monkeypatch.setattr(platform, "cores", lambda: 4)
    monkeypatch.delenv("NPROC", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert platform.cpu_devices() == number
    assert platform.cpu_devices(factorizes=True) == with_one_to_spare
    before = dict(os.environ)
    platform.use_one_thread("cpu")
    assert platform.cpu_devices() == (number if variables else 1)
    monkeypatch.delenv("NPROC", raising=False)
    assert os.environ == {name: x for name, x in before.items() if name != "NPROC"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "first", ["", "rljax.train('a2c', env='CartPole-v1', total_timesteps=800, quiet=True)"]
)
def test_factorisations_on_every_device_do_not_wait_for_each_other(first, tmp_path):
    """Each, of a batch, needs a thread of XLA's beside that of its device, also where JAX had
    started without one, in an earlier run of the process."""
    pytest.importorskip("brax")
    program = f"""
import rljax
{first}
settings = dict(total_timesteps=64 * 8 * 3, num_seeds=2, eval_episodes=1, eval_max_steps=5)
run = rljax.train("a2c", env="brax/ant", quiet=True, **settings)
print(run.status)
"""
    told = {name: x for name, x in os.environ.items() if not name.endswith("NPROC")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=told,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "completed\n", done.stderr
