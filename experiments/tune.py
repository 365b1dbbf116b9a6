"""Random search over float settings: how the presets were found.

python experiments/tune.py --env Acrobot-v1 --num-steps 16 --axis learning_rate=log:1e-3:1e-1 \
    ent_coef=0,0.01 gae_lambda=0.8,0.95,1

Settings start from their defaults, not from the environment's preset. Every point is trained with
the same seeds; all of them are one compiled program. An axis is either log:LOW:HIGH, drawn
log-uniformly, or values to choose from. Prints the points, the best first: by the IQM over seeds of
the final evaluation.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Literal

import common
import flags
import numpy as np

from rljax import files
from rljax.config import FLOAT_FIELDS, Config, unknown


@dataclasses.dataclass(frozen=True)
class Options:
    axis: tuple[str, ...] = ("learning_rate=log:1e-4:1e-1",)
    """The settings to search, each as name=log:LOW:HIGH or name=VALUE,VALUE,..."""
    points: int = 16
    """Settings that are tried."""
    num_seeds: int = 4
    """Seeds of each: 0 and the following ones."""
    search_seed: int = 0
    """For the choice of points."""
    eval_episodes: int = 20
    """Full episodes per seed in the evaluation."""
    eval_mode: Literal[flags.EVAL_MODES] = "greedy"
    """Whether it takes the policy's mode or samples from it."""
    device: Literal[flags.DEVICES] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""
    json: Path | None = None
    """Also add the points to this file, one JSON object a line."""


def main(argv: list[str]) -> int:
    try:
        config, options = flags.parse_config((Config(), Options()), __doc__, argv)
        for name in ("points", "num_seeds", "eval_episodes"):
            if getattr(options, name) < 1:
                raise ValueError(f"{name} = {getattr(options, name)}: must be at least 1")
        if options.json:
            files.write(options.json, options.json.read_bytes() if options.json.exists() else b"")
        axes = dict(parse_axis(text) for text in options.axis)
        points = draw(axes, options.points, options.search_seed)
        for point in points:
            dataclasses.replace(config, **point).validate()
        flags.set_device(options.device)
        begun = time.perf_counter()
        returns, last = play(config, points, options)
    except (ValueError, TypeError, files.WriteError) as error:
        return flags.fail(error)
    report(config, points, returns, last, options, time.perf_counter() - begun)
    return 0


def parse_axis(text: str) -> tuple[str, list[float] | tuple[float, float]]:
    """(name, (low, high) of a log-uniform draw or the list of values)."""
    name, _, values = text.partition("=")
    if name not in FLOAT_FIELDS:
        raise ValueError(unknown("float setting", name, list(FLOAT_FIELDS)))
    kind, *bounds = values.split(":")
    try:
        if kind == "log":
            low, high = map(float, bounds)
            if not 0 < low <= high < float("inf"):
                raise ValueError
            return name, (low, high)
        return name, [float(value) for value in values.split(",")]
    except ValueError:
        message = f"axis {text!r}: must be log:LOW:HIGH with 0 < LOW <= HIGH, or values with commas"
        raise ValueError(message) from None


def draw(axes, number: int, seed: int) -> list[dict[str, float]]:
    generator = np.random.default_rng(seed)

    def value(axis):
        if isinstance(axis, tuple):
            return float(np.exp(generator.uniform(*np.log(axis))))
        return float(generator.choice(axis))

    return [{name: value(axis) for name, axis in axes.items()} for _ in range(number)]


def play(config: Config, points, options) -> tuple[np.ndarray, np.ndarray]:
    """Trains and evaluates; (returns [P, S] of the evaluation, [P, S] at the end of training)."""
    import jax

    from rljax import a2c, evaluate

    stacked = jax.tree.map(
        lambda *x: np.stack(x), *(dataclasses.replace(config, **point) for point in points)
    )
    keys = common.seed_keys(range(options.num_seeds))
    train = jax.jit(jax.vmap(jax.vmap(a2c.train, in_axes=(None, 0)), in_axes=(0, None)))
    states, metrics = train(stacked, keys)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), states.learner)
    eval_keys = evaluate.evaluation_keys(keys, config.num_updates)
    eval_keys = jax.numpy.tile(eval_keys, len(points))
    greedy = options.eval_mode == "greedy"
    played = evaluate.evaluate(config, flat, eval_keys, options.eval_episodes, greedy)
    shape = (len(points), options.num_seeds)
    return played.returns.mean(axis=1).reshape(shape), last_returns(metrics.episodic_return)


def last_returns(returns) -> np.ndarray:
    """[P, S] of returns [P, S, R]: the mean of the last ten rows, of those that have one."""
    with np.errstate(all="ignore"):
        rows = np.asarray(returns)[:, :, -10:]
        known = ~np.isnan(rows)
        return np.where(known, rows, 0).sum(axis=2) / known.sum(axis=2)


def report(config, points, returns, last, options, seconds):
    from rljax import analysis

    scores = analysis.iqm(returns)
    order = np.argsort(np.where(np.isnan(scores), -np.inf, scores))[::-1]
    print(f"{config.env}: {len(points)} points x {options.num_seeds} seeds, {seconds:.0f} s")
    print(f"{'IQM':>9}{'lowest':>9}{'highest':>9}{'training':>9}  settings")
    for i in order:
        settings = " ".join(f"{name}={value:.4g}" for name, value in points[i].items())
        figures = (scores[i], returns[i].min(), returns[i].max(), last[i].mean())
        print("".join(f"{figure:9.2f}" for figure in figures), "", settings)
    if options.json:
        from rljax import runs

        with options.json.open("a") as file:
            for point, per_seed in zip(points, returns):
                settings = {**runs.config_record(config), **point}
                file.write(json.dumps({"config": settings, "returns": per_seed.tolist()}) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
