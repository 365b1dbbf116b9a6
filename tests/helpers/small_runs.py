"""Small runs, as tests train, stop and compare them."""

import json
import os
import signal

import pytest

import rljax
from rljax import Config
from rljax.loggers import tables
from rljax.runs import checkpoints
from rljax.utils import seeds

SETTINGS = dict(
    env="probes:RewardByAction",
    total_timesteps=3192,
    num_envs=4,
    num_steps=4,
    hidden_sizes=(8,),
    learning_rate=0.01,
)
"""200 updates of 16 steps, in rows of 2; greedy policies have learned which action pays."""
CONFIG = Config(**SETTINGS)
OPTIONS = dict(num_seeds=2, seed=5, eval_episodes=4, eval_every=800, quiet=True)
TIMES = ["wall_seconds", "steps_per_second"]


def train(run_dir=None, **more):
    return rljax.train("a2c", **{**SETTINGS, **OPTIONS, **more}, run_dir=run_dir)


def argv(run_dir, **more):
    """The same as a command line."""
    settings = {**SETTINGS, "hidden_sizes": 8, **OPTIONS, "run_dir": run_dir, **more}
    del settings["quiet"]
    flags = ((f"--{name.replace('_', '-')}", str(value)) for name, value in settings.items())
    return [text for flag in flags for text in flag]


def stop_at_update(patch, update, number=signal.SIGTERM):
    """Sends a signal in the chunk that takes A2C past an update."""
    from rljax import a2c

    chunks = a2c.chunks

    def interrupted(*args, **how):
        for states, metrics in chunks(*args, **how):
            if metrics.updates[0] >= update:
                os.kill(os.getpid(), number)
            yield states, metrics

    patch.setattr(a2c, "chunks", interrupted)
    patch.setattr(seeds, "CHUNK_SECONDS", 1e-9)  # chunks of one update


def results(run_dir):
    """All that a resumed run must have in common with an undisturbed one."""
    summary = json.loads((run_dir / "summary.json").read_text())
    last = checkpoints.folder(run_dir, checkpoints.existing(run_dir)[-1])
    return {
        "metrics": tables.read_metrics(run_dir).drop(columns=TIMES).to_csv(),
        "evaluations": (run_dir / "evaluations.csv").read_text(),
        "summary": {n: x for n, x in summary.items() if n not in (*TIMES, "compile_seconds")},
        **{path.name: path.read_bytes() for path in last.glob("*.safetensors")},
    }


def contents(run_dir):
    return {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


def train_half(run_dir, **more):
    """A run that a signal ended between two rows of metrics, after about half its steps."""
    with pytest.MonkeyPatch.context() as patch:
        stop_at_update(patch, 111)
        assert train(run_dir, **more).status == "interrupted"
    return run_dir
