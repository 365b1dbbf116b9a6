"""Devices that JAX does not have, and what a CPU is split into."""

import os

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
    ("variables", "number"),
    [({}, 4), ({"NPROC": "1"}, 1), ({"NPROC": "9"}, 4), ({"NPROC": "2", "PJRT_NPROC": "3"}, 3)],
)
def test_a_cpu_is_split_into_as_many_devices_as_xla_has_threads(variables, number, monkeypatch):
    monkeypatch.setattr(platform, "cores", lambda: 4)
    monkeypatch.delenv("NPROC", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert platform.cpu_devices() == number
    before = dict(os.environ)
    platform.use_one_thread("cpu")
    assert platform.cpu_devices() == (number if variables else 1)
    monkeypatch.delenv("NPROC", raising=False)
    assert os.environ == {name: x for name, x in before.items() if name != "NPROC"}
