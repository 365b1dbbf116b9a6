"""Benchmarks measure, and write a line with all results and what they depend on."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rljax.cli import benchmark
from rljax.config import Config

BENCHMARKS = Path(__file__).parents[1] / "experiments" / "benchmarks"
TINY = {
    "a2c": "--envs CartPole-v1 --sizes 2x3 --repeats 1 --seconds 0.01",
    "host": "--sizes 2x3 --ways sync --repeats 1 --seconds 0.05",
    "a3c": "--envs CartPole-v1 --sizes 1x3 --workers 1 --seconds 0.2",
    "sweep": "--rates 2 --seeds 1 --timesteps 1000 --rounds 1 --seconds 0.1 --sizes 1"
    " --shapes CartPole-v1,2x3",
    "search": "--envs Catch-bsuite --searches random:1 halving:1 --repetitions 2 --points 8",
    "checkpoints": "--total-timesteps 20000",
    "start": "",
}


def measured(name, tmp_path):
    """(results, what was printed) of a benchmark of tiny sizes, as a process of its own."""
    path = tmp_path / "runs" / "results.jsonl"
    command = [sys.executable, BENCHMARKS / f"{name}.py", *TINY[name].split(), "--json", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"results: {path}"
    (line,) = map(json.loads, path.read_text().splitlines())
    assert f"{name}.py {TINY[name]}".strip() in line["command_line"]
    assert {"git_commit", "versions", "device", "processor", "cores"} <= set(line)
    return line["figures"], done.stdout


def test_a_line_is_added(tmp_path, capsys):
    path, how = tmp_path / "runs" / "results.jsonl", benchmark.Speeds((), ("2x3",), 1, 0.5)

    def measure(how):
        rows = ({"env": f"env {i}", "speed": 1234.5 + i} for i in range(2))
        return "cpu", benchmark.table({"env": "", "speed": ",.0f"}, rows)

    for _ in range(2):
        argv = ["--sizes", "4x5", "--json", str(path)]
        assert benchmark.main("A test.", measure, how, argv=argv) == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 2
    assert lines[0]["figures"] == [
        {"env": "env 0", "speed": 1234.5},
        {"env": "env 1", "speed": 1235.5},
    ]
    assert lines[0]["options"] == {"envs": [], "sizes": ["4x5"], "repeats": 1, "seconds": 0.5}
    head, first, _, last = capsys.readouterr().out.splitlines()[:4]
    assert head.split() == ["env", "speed"]
    assert first.split() == ["env", "0", "1,234"]
    assert last == f"results: {path}"


def test_a_wrong_size_is_refused(tmp_path, capsys):
    how = benchmark.Speeds(("CartPole-v1",), ("2x3", "2by3"), repeats=1, seconds=0.01)
    argv = ["--json", str(tmp_path / "runs" / "results.jsonl")]
    assert benchmark.main("A test.", lambda how: how.rows(Config(), None), how, argv=argv) == 2
    wrong = "error: size '2by3': must be environments x steps, such as 16x5\n"
    assert capsys.readouterr() == ("", wrong)
    assert list(tmp_path.iterdir()) == []


PROGRAM = """
HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%inner (arg: f32[8]) -> f32[8] {
  %arg = f32[8]{0} parameter(0)
  %start = (f32[8]{0}, u32[]) copy-start(%arg)
  %copied = f32[8]{0} copy-done(%start)
  ROOT %last = f32[8]{0} fusion(%copied), kind=kLoop, calls=%f, metadata={op_name="jit(f)/add"}
}

%condition (arg.1: f32[8]) -> pred[] {
  %arg.1 = f32[8]{0} parameter(0)
  ROOT %less = pred[] fusion(%arg.1), kind=kLoop, calls=%g
}

%outer (arg.2: f32[8]) -> f32[8] {
  %arg.2 = f32[8]{0} parameter(0)
  %called = f32[8]{0} call(%arg.2), to_apply=%inner
  ROOT %loop = f32[8]{0} while(%called), condition=%condition, body=%inner, \
backend_config={"known_trip_count":{"n":"3"}}
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %both = (s32[], /*index=1*/(f32[8]{0}, f32[8]{0})) custom-call(%x), custom_call_target="gemm"
  %loop.1 = f32[8]{0} while(%x), condition=%condition, body=%outer, \
backend_config={"known_trip_count":{"n":"5"}}
  %loop.2 = f32[8]{0} while(%loop.1), condition=%condition, body=%inner
  ROOT %either = f32[8]{0} conditional(%x, %x, %x), true_computation=%condition, \
false_computation=%inner
}
""".replace("\\\n", "")


@pytest.fixture
def launches(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("launches")


def test_launches_of_a_program(launches):
    loops = 5 * (2 + 3 * 2) + (1 + 2)  # the second is of unknown length, and has a condition
    assert launches.counts(PROGRAM) == {
        "launches": 1 + loops + 1 + 1,
        "in loops": loops,
        "outside": 3,
        "unknown": 1,
        "rare": 1,
    }
    lines = [launches.line(op) for op in launches.operations(PROGRAM)]
    assert [text.split()[:2] for text in lines[:3]] == [
        ["custom-call", "1"],
        ["while", "x5"],
        ["copy-start", "5"],
    ]
    assert lines[3].startswith("    fusion")
    assert lines[3].endswith("  jit(f)/add")


def test_launches_need_a_plugin(launches, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(launches.metadata, "entry_points", lambda group: ())
    argv = ["--json", str(tmp_path / "launches.jsonl")]
    assert benchmark.main("A test.", launches.measure, launches.Options(), argv=argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: JAX's CUDA plugin is not installed")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", ["CartPole-v1 4x2", "CartPole-v1 4x2 0", "CartPole-v1 4 1"])
def test_a_wrong_case_is_refused(case):
    assert benchmark.parsed_case("Catch-bsuite 4x2 3")[1] == 3
    with pytest.raises(ValueError, match="must be"):
        benchmark.parsed_case(case)


@pytest.mark.slow
def test_a2c(tmp_path):
    results, out = measured("a2c", tmp_path)
    (row,) = results["steps_per_second"]
    assert (row["env"], row["size"], results["seed"]) == ("CartPole-v1", "2x3", 0)
    assert all(row[name] > 0 for name in ("environment", "acting", "rollout", "training"))
    assert out.split()[:3] == ["env", "size", "environment"]


@pytest.mark.slow
def test_host(tmp_path):
    results, _ = measured("host", tmp_path)
    (row,) = results["steps_per_second"]
    assert (row["size"], row["way"]) == ("2x3", "sync")
    assert row["share"] == row["training"] / row["environment"] > 0


@pytest.mark.slow
def test_a3c(tmp_path):
    results, _ = measured("a3c", tmp_path)
    (row,) = results["runs"]
    assert row["steps/s"] == pytest.approx(3 * row["gradients/s"])
    phases = ("pull", "environment", "policy", "gradient", "push", "wait")
    assert sum(row[name] for name in phases) == pytest.approx(1)
    assert results["alone"]["holder_gradients_per_second"] > 0
    messages = results["alone"]["messages_per_second"]
    assert all(speed > 0 for ways in messages.values() for speed in ways.values())


@pytest.mark.slow
def test_sweep(tmp_path):
    results, _ = measured("sweep", tmp_path)
    (row,) = results["in_turn"]
    assert row["ratio"] == row["population"] / row["in turn"] > 0
    assert 0 < results["files"]["share"] < 1
    assert min(results["by_trials"][0]["steps_per_second"].values()) > 0


@pytest.mark.slow
def test_search(tmp_path):
    figures, printed = measured("search", tmp_path)
    assert [row["told"] for row in figures] == ["random:1", "halving:1"] * 2
    assert all(0.3 < row["env_steps"] / (8 * 4 * 50_000) <= 1.02 for row in figures)
    assert "Catch-bsuite halving:1: mean" in printed


@pytest.mark.slow
def test_checkpoints(tmp_path):
    results, out = measured("checkpoints", tmp_path)
    assert results["saves"] == 10
    assert 0 < results["share_waited"] < 1
    assert out.startswith("10 checkpoints in ")


@pytest.mark.slow
def test_start(tmp_path):
    results, _ = measured("start", tmp_path)
    assert set(results["imports"]) == {"jax", "flax.linen", "gymnax", "rljax.a2c"}
    caches = [(row["seconds"], row["cache"]) for row in results["scripts"]]
    assert caches == [(s, cache) for cache in ("cold", "warm") for s in ("a2c.py", "a3c.py")]
    assert all(0 < row["first row"] < row["whole"] for row in results["scripts"])
