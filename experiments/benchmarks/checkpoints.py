"""What checkpoints cost: the share of its time that a run takes longer by ten of them.

python experiments/benchmarks/checkpoints.py

Rows of metrics that follow a checkpoint are compared with the others, in a run of a minute or so
of the CartPole preset with eight seeds.
"""

import dataclasses
import sys
import tempfile
from time import perf_counter

import numpy as np

import rljax
from rljax.cli import benchmark
from rljax.runs import directory
from rljax.runs.recorder import Recorder

SAVES = 10


@dataclasses.dataclass(frozen=True)
class Length:
    total_timesteps: int = 8_000_000  # Of each seed.


def measure(length, where):
    row_ends, steps = [], length.total_timesteps  # [(time, number of checkpoints)]
    options = dict(total_timesteps=steps, checkpoint_every=steps // (SAVES + 1), eval_episodes=0)
    options |= dict(device=where.device, quiet=True)
    with tempfile.TemporaryDirectory() as folder, benchmark.timed(Recorder, "save") as waits:
        options["on_log"] = lambda row: row_ends.append((perf_counter(), len(waits)))
        run = rljax.train("a2c", "CartPole-v1", run_dir=f"{folder}/run", **options)
        device = directory.read_record(run.run_dir)["device"]
    seconds, saves = np.diff(row_ends, axis=0).T  # of all rows but the first
    plain, saved, whole = seconds[saves == 0], seconds[saves > 0], seconds.sum()
    share = float((saved - np.median(plain)).sum() / whole)
    waited = sum(waits[1:-1]) / whole  # the others are before the first row and after the last
    print(f"{len(saved)} checkpoints in {whole:.0f} s of training take {share:.2%} of it;", end=" ")
    print(f"training waits for {waited:.2%}")
    results = {"saves": len(saved), "seconds": whole, "share": share, "share_waited": waited}
    return device, {"seeds": run.seeds, **results}


if __name__ == "__main__":
    sys.exit(benchmark.main(__doc__, measure, Length(), benchmark.Device()))
