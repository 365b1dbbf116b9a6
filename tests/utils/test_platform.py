"""Devices that JAX does not have."""

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
