"""The memory of an update of images on a CPU, by XLA's word; `test_launches` has that on a GPU."""

import sys
from pathlib import Path

import jax
import pytest

from rljax import a2c
from rljax.cli import benchmark

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.mark.slow
def test_memory_of_images(monkeypatch):
    """Of 64x64x3 bytes, compiled and not run."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    config, _ = benchmark.parsed_case("image_env:MovingBlock 2048x16 1")
    state = jax.eval_shape(a2c.init, config, jax.eval_shape(jax.random.key, 0))
    program = jax.jit(a2c.update, donate_argnums=1).lower(config, state).compile()
    assert 0 < program.memory_analysis().temp_size_in_bytes <= 3 * 2**30
    monkeypatch.delitem(sys.modules, "image_env")
