"""Run directories as a run leaves them, made without training, for tests that harm them."""

import jax
import numpy as np

from rljax import Config, a2c
from rljax.loggers import tables
from rljax.runs import checkpoints, directory, records, settings
from rljax.runs.best import updated
from rljax.runs.options import RunOptions
from rljax.runs.start import Progress
from rljax.utils import atomic_io

CONFIG = Config(
    env="probes:Configured",
    env_kwargs={"sizes": [1, (2, 3)], "of": {"a": None, 1: 2.5}},
    total_timesteps=320,
    num_envs=4,
    num_steps=4,
    hidden_sizes=(8,),
    max_grad_norm=float("inf"),
    normalize_observations=True,
)
SEEDS = [5, 6]


def make_run(path):
    """A run of two seeds with two checkpoints."""
    options = RunOptions(seed=SEEDS[0], num_seeds=2, eval_every=100, run_dir=path)
    asked = settings.Settings("a2c", CONFIG, options.with_log_interval(CONFIG), ())
    record = {**settings.record(asked), **directory.provenance("cpu")}
    directory.create(path, record, "metrics.csv")
    best, which = None, np.arange(2)
    for env_steps in (160, 320):
        updates, steps = env_steps // 16, np.array([env_steps] * 2)
        tables.append_metrics(path, [_row(seed, env_steps) for seed in SEEDS])
        returns = np.full((2, 3), env_steps, np.float32)
        rows = [(seed, env_steps, updates, row) for seed, row in zip(SEEDS, returns)]
        tables.append_evaluations(path, rows)
        states = _states(updates)
        best = updated(best, states.learner, which, returns.mean(axis=1), steps)
        progress = Progress(wall_seconds=1.5, last_return=0.5, evaluated=steps.tolist())
        facts = {
            "algorithm": "a2c",
            "config": records.config_record(CONFIG),
            "seeds": SEEDS,
            "env_steps": env_steps,
            "updates": updates,
            "progress": vars(progress),
            "tables": tables.mark(path),
            "best": {"env_steps": best.env_steps.tolist(), "returns": best.returns.tolist()},
        }
        trees = {"state": states, "best": {"learner": best.learner}}
        checkpoints.save(checkpoints.folder(path, env_steps), trees, facts)
    final = {"mean": 1.0, "iqm": 1.0, "ci95": [0.5, 1.5], "per_seed": [0.5, 1.5], "mode": "greedy"}
    summary = {"seeds": SEEDS, "env_steps": 320, "final_return": final, "wall_seconds": 2.5}
    atomic_io.write_json(path / "summary.json", {**summary, "status": "completed"})


def _row(seed, env_steps):
    counts = dict(seed=seed, env_steps=env_steps, updates=env_steps // 16, episodes=9)
    times = dict(wall_seconds=1.5, steps_per_second=100)
    return {**dict.fromkeys(tables.METRICS, 0.1 * seed), **counts, **times}


def shapes(config):
    """Of the states of a run."""
    keys = jax.eval_shape(jax.vmap(jax.random.key), np.zeros(len(SEEDS), np.uint32))
    return jax.eval_shape(a2c.init_seeds, config, keys)


def _states(updates):
    """Of zeros: nothing is compiled."""
    keys = jax.random.split(jax.random.key(0), len(SEEDS))

    def fill(leaf):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return keys if is_key else np.zeros(leaf.shape, leaf.dtype)

    states = jax.tree.map(fill, shapes(CONFIG))
    learner = states.learner._replace(updates=np.full(len(SEEDS), updates, np.int32))
    return states._replace(learner=learner)
