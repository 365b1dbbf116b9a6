"""What an update of A2C launches on an H100 and the memory it takes there, by XLA's word: no GPU is
needed, but JAX's CUDA plugin, and a process in which JAX has not started."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"
LIMITS = {
    "CartPole-v1 4096x16 1": 220,
    "CartPole-v1 512x16 8": 220,
    "Breakout-MinAtar 1024x16 1": 420,
}
IMAGES = "image_env:MovingBlock 2048x16 1"
MATRIX = jax.ShapeDtypeStruct((512, 512), jnp.float32)
NUMBER = jax.ShapeDtypeStruct((), jnp.int32)

sys.path.append(str(BENCHMARKS))
import launches  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not launches.has_plugin(), reason="JAX's CUDA plugin is not installed"),
]


def run(tmp_path, *flags):
    """(rows of the table, what was printed) of the program."""
    path = tmp_path / "launches.jsonl"
    command = [sys.executable, BENCHMARKS / "launches.py", *flags, "--json", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())["figures"], done.stdout.splitlines()


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    found, _ = run(tmp_path_factory.mktemp("launches"))
    rows = {row["case"]: row for row in found}
    assert set(rows) == {*LIMITS, IMAGES}
    return rows


@pytest.mark.parametrize("case", LIMITS)
def test_launches_of_an_update(rows, case):
    assert 0 < rows[case]["launches"] <= LIMITS[case]


@pytest.mark.parametrize("case", [*LIMITS, IMAGES])
def test_every_loop_has_a_known_length(rows, case):
    assert rows[case]["unknown"] == 0


def test_memory_of_images(rows):
    assert 0 < rows[IMAGES]["MiB"] <= 3 * 1024


def test_every_launch_is_listed(tmp_path):
    (row,), (head, shown, *listing, _) = run(tmp_path, "--cases", "CartPole-v1 8x3 2", "--list")
    assert head.split()[:2] == ["case", "launches"]
    assert shown.split()[3] == str(row["launches"])
    listed = [(text.split()[:2], text.startswith(" ")) for text in listing]
    times = [(int(times), inside) for (kind, times), inside in listed if kind != "while"]
    assert sum(number for number, _ in times) == row["launches"]
    assert sum(number for number, inside in times if inside) == row["in loops"]


def counted(function, *shapes):
    return launches.counts(launches.compile_for_h100(function, *shapes).as_text())


def product(x):
    return x @ x


@pytest.fixture(scope="module")
def on_cpu():
    """Otherwise the plugin looks for a GPU when JAX starts, and is not there for compiling."""
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", "cpu")
    yield
    jax.config.update("jax_platforms", before)


@pytest.fixture(scope="module")
def alone(on_cpu):
    """Launches of a product: more than one, if XLA splits its sums."""
    return counted(product, MATRIX)["launches"]


def test_one_launch(on_cpu):
    assert counted(lambda x: jnp.sin(x) + 1, MATRIX) == {
        "launches": 1,
        "in loops": 0,
        "outside": 1,
        "unknown": 0,
        "rare": 0,
    }


@pytest.mark.parametrize("steps", [7, 20])
def test_launches_of_a_scan(alone, steps):
    def scan(x):
        return jax.lax.scan(lambda x, _: (product(x), None), x, None, length=steps)[0]

    found = counted(scan, MATRIX)
    assert found["in loops"] == steps * (alone + 1)  # 1 counts the steps
    assert found["unknown"] == 0


def test_launches_of_nested_loops(alone):
    def inner(x):
        return jax.lax.fori_loop(0, 3, lambda _, x: product(x), x)

    def outer(x):
        return jax.lax.fori_loop(0, 5, lambda _, x: inner(x), x)

    found = counted(outer, MATRIX)
    assert found["in loops"] == 5 * (3 * (alone + 1) + 2)  # the inner count is also set to 0
    assert found["unknown"] == 0


def test_a_loop_of_unknown_length(alone):
    def loop(number, x):
        return jax.lax.fori_loop(0, number, lambda _, x: product(x), x)

    found = counted(loop, NUMBER, MATRIX)
    assert found["unknown"] == 1
    assert found["in loops"] == alone + 2  # compares and counts


def test_launches_of_branches(alone):
    def either(number, x):
        return jax.lax.cond(number > 0, lambda x: product(product(x)), lambda x: x + 1, x)

    found = counted(either, NUMBER, MATRIX)
    assert found["outside"] == found["launches"] == 3  # compare, branch, add
    assert found["rare"] == 2 * alone - 1
