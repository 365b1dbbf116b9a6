"""How long scripts take to start, in seconds.

python experiments/benchmarks/start.py

import       whole processes that import a package
first row    from the command to the first row of metrics; A3C's is of four gradients
whole        the whole command, and the compilation in it

The scripts are run with an empty cache of compiled programs (cold) and again with a full one.
"""

import json
import os
import subprocess
import sys
import tempfile
import timeit
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

from rljax.cli import benchmark
from rljax.runs import directory

IMPORTS = ("jax", "flax.linen", "gymnax", "rljax.a2c")
A3C = "--num-workers 4 --total-timesteps 2000 --eval-episodes 0".split()
COLUMNS = {"seconds": "", "cache": "", "first row": ".1f", "whole": ".1f", "compilation": ".1f"}


def measure(where):
    imports = {name: import_seconds(name) for name in IMPORTS}
    print("import, whole process:", *(f"{name} {x:.1f} s" for name, x in imports.items()))
    scripts = {"a2c.py": ["--device", where.device], "a3c.py": A3C}
    with tempfile.TemporaryDirectory() as folder:
        pairs = [(cache, script) for cache in ("cold", "warm") for script in scripts]
        rows = (start(script, cache, Path(folder), *scripts[script]) for cache, script in pairs)
        results = {"imports": imports, "scripts": benchmark.table(COLUMNS, rows)}
        record = directory.read_record(Path(folder, "cold-a2c.py"))
        return record["device"], {"num_seeds": record["run"]["num_seeds"]} | results


def import_seconds(name):
    run = partial(subprocess.run, [sys.executable, "-c", f"import {name}"], check=True)
    return median(timeit.repeat(run, number=1, repeat=3))


def start(script, cache, folder, *flags):
    run_dir = folder / f"{cache}-{script}"
    path, metrics = Path(__file__).parents[1] / script, run_dir / "metrics.csv"
    environ = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
    begun = perf_counter()
    command = [sys.executable, path, "--quiet", "--run-dir", run_dir, *flags]
    process = subprocess.Popen(command, env=environ)
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") > 1):
        sleep(0.01)
    first_row = perf_counter() - begun
    if process.wait():
        raise ValueError(f"{path} exited with status {process.returncode}")
    whole = perf_counter() - begun
    compilation = json.loads((run_dir / "summary.json").read_bytes())["compile_seconds"]
    return dict(zip(COLUMNS, (script, cache, first_row, whole, compilation)))


if __name__ == "__main__":
    sys.exit(benchmark.main(__doc__, measure, benchmark.Device()))
