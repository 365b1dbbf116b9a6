"""Steps, and seconds, until a row of metrics of CartPole has a mean return of 195 of 500."""

import dataclasses

import machine

from rljax.a3c.simulation import SimulationConfig
from rljax.cli import claims

TARGET, ROW = 195, 2_000  # steps of a row
STEPS, MOST_SECONDS = 100_000, 600  # of a run
FACTORS = {"a2c": (4, 8, 16, 32, 64), "a3c": (0.5, 1, 2, 4, 8), "dqn": (0.25, 0.5, 1, 2, 4)}
"""Of the preset's learning rate, which for A2C is of three times as long a run: its RMSProp begins
with small steps."""


def needed(lab, algorithm, shape):
    """(mean steps to the score, learning rate) of the best of the rates; a run that does not get
    there counts as one of twice its length."""
    config, own = machine.settings(algorithm, "JAX", (shape[0], 0), lab.of(STEPS, 4_000))
    if algorithm == "a3c":
        own = SimulationConfig(num_workers=shape[1], envs_per_worker=shape[0], diagnostics=False)
    rates = [config.learning_rate * factor for factor in lab.of(FACTORS[algorithm], (1,))]
    how = dict(algorithm=algorithm.replace("a3c", "a3c_simulated"), own=own, first=0)
    name = f"tuning_{algorithm}_{shape[0]}x{shape[1] if algorithm == 'a3c' else 0}"
    axes = {"learning_rate": rates}
    table = lab.sweep(name, config, axes, num_seeds=lab.seeds(5), **how)
    steps = table["env_steps"].where(table["episodic_return"] >= TARGET, 2 * STEPS)
    each = steps.groupby([table["learning_rate"], table["trial"]]).min()
    means = each.groupby("learning_rate").mean()
    return float(means.min()), float(means.idxmin())


def run(lab, algorithm, kind, shape, rate, seed):
    """{"seconds": of training, to the score or to the end, "start": those before, "reached": bool}
    of a run in this shape."""

    def make():
        config, own = machine.settings(algorithm, kind, shape, lab.of(STEPS, 4_000))
        config = dataclasses.replace(config, learning_rate=rate)
        how = dict(vars(own) if own else {}, seed=claims.FRESH + seed, num_seeds=1)
        interval = -(-ROW // config.batch_size)
        how |= dict(stop_at_return=TARGET, log_interval=interval)

        def on_log(row):
            return "stop" if row.metrics[0]["wall_seconds"] > MOST_SECONDS else None

        rows = claims.trained(algorithm, config=config, on_log=on_log, **how).metrics
        first, last = rows.iloc[0], rows.iloc[-1]
        start = first["wall_seconds"] - first["env_steps"] / rows["steps_per_second"].median()
        return {
            "seconds": max(last["wall_seconds"] - start, 1e-3),
            "start": start,
            "reached": bool(last["episodic_return"] >= TARGET),
        }

    return lab.kept(f"{algorithm}_{kind}/{seed}", make)
