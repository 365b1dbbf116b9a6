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
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

from rljax.cli import benchmark
from rljax.runs import directory

IMPORTS = ("jax", "flax.linen", "gymnax", "rljax.a2c")
A3C = "--num-workers 4 --total-timesteps 2000 --eval-episodes 0".split()
SECONDS = dict.fromkeys(("first row", "whole", "compilation"), ".1f")
COLUMNS = {"seconds": "", "cache": "", **SECONDS}


def measure(where):
    imports = {name: median(import_seconds(name) for _ in range(3)) for name in IMPORTS}
    print("import, whole process:", *(f"{name} {x:.1f} s" for name, x in imports.items()))
    scripts = {"a2c.py": ["--device", where.device], "a3c.py": A3C}
    with tempfile.TemporaryDirectory() as folder:
        pairs = [(cache, script) for cache in ("cold", "warm") for script in scripts]
        rows = (start(script, cache, Path(folder), *scripts[script]) for cache, script in pairs)
        figures = {"imports": imports, "scripts": benchmark.table(COLUMNS, rows)}
        device = directory.read_record(Path(folder, "cold-a2c.py"))["device"]
    return device, figures


def import_seconds(name):
    begun = perf_counter()
    subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
    return perf_counter() - begun


def start(script, cache, folder, *flags):
    run_dir = folder / f"{cache}-{script}"
    path, metrics = Path(__file__).parents[1] / script, run_dir / "metrics.csv"
    environ = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
    command = [sys.executable, path, "--quiet", "--run-dir", run_dir, *flags]
    begun = perf_counter()
    process = subprocess.Popen(command, env=environ)
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") > 1):
        sleep(0.01)
    first_row = perf_counter() - begun
    if process.wait():
        raise ValueError(f"{path} exited with status {process.returncode}")
    whole = perf_counter() - begun
    compiling = json.loads((run_dir / "summary.json").read_bytes())["compile_seconds"]
    seconds = dict(zip(SECONDS, (first_row, whole, compiling)))
    return {"seconds": script, "cache": cache, **seconds}


if __name__ == "__main__":
    sys.exit(benchmark.main(__doc__, measure, benchmark.Device()))
