"""Parallel workers break the correlation of experience, so that no replay buffer is needed.

python experiments/claims/correlation.py

Batches of 80 steps of CartPole by one policy, from 1 to 80 environments, and drawn at random from
50,000 steps of one, as replay does; a batch has as many independent observations as give its mean's
variance. Then learning at equal steps: A2C with these batches, DQN with its buffer and with as many
transitions as an update samples; rates tuned alike, greedy policies, ten other seeds.
"""

import dataclasses
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rljax import a2c, analysis, presets, rollout
from rljax.cli import claims
from rljax.runs import settings

HOURS = 0.3
BATCH, WORKERS = 80, (1, 4, 16, 80)
RATES = {"a2c": (0.0019, 0.0038, 0.0075, 0.015, 0.03), "dqn": (0.0005, 0.001, 0.002, 0.004, 0.008)}


def measure(lab):
    base = presets.preset("a2c", "CartPole-v1")
    base = dataclasses.replace(base, total_timesteps=lab.of(base.total_timesteps, 20_000))
    shapes = {n: dict(num_envs=n, num_steps=BATCH // n) for n in lab.of(WORKERS, (1, 16))}
    independent = lab.kept("independent", partial(_all_independent, base, shapes, lab.of(4000, 50)))
    how = {n: dict(base=dataclasses.replace(base, **shape)) for n, shape in shapes.items()}
    sides = {f"A2C, {n} environment{'s' * (n > 1)}": x for n, x in how.items()}
    preset = settings.start_from("dqn", "CartPole-v1", None)
    of_dqn, (own,) = preset.config, preset.own
    of_dqn = dataclasses.replace(of_dqn, total_timesteps=lab.of(of_dqn.total_timesteps, 5_000))
    least = own.gradient_steps * own.replay_batch_size
    for name, size in {"its buffer": own.buffer_size, "no buffer": least}.items():
        it = dataclasses.replace(own, buffer_size=size)
        sides[f"DQN, {name}"] = dict(base=of_dqn, algorithm="dqn", own=it)
    returns, rates = {}, {}
    for name, side in sides.items():
        axes = {"learning_rate": lab.of(RATES[side.get("algorithm", "a2c")], (0.004,))}
        rates[name], table = lab.tuned(name, axes=axes, eval_episodes=20, **side)
        returns[name] = claims.finals(table)
    pairs = (("A2C, 16 environments", "A2C, 1 environment"), ("DQN, its buffer", "DQN, no buffer"))
    told = [analysis.compare(*(returns[name] for name in pair), pair) for pair in pairs]
    grows = independent[str(max(shapes))] > 2 * independent["1"]
    answer = "true" if grows and all(x.is_decided and x.difference.value > 0 for x in told) else ""
    counts = ", ".join(f"{x:.1f} of {name}" for name, x in independent.items())
    sentences = [
        f"Independent observations in a batch of {BATCH}: {counts} (environments, replay)."
    ]
    sentences += [x.sentence for x in told]
    numbers = {x: claims.summary(y) for x, y in returns.items()}
    numbers = {"independent": independent, "returns": numbers, "rates": rates}
    return claims.Found(answer or "not in every part", sentences, numbers)


def _all_independent(base, shapes, number):
    policy = jax.jit(a2c.train)(base, jax.random.key(0))[0].learner
    found = {n: _batches(dataclasses.replace(base, **x), policy, number) for n, x in shapes.items()}
    stream = found[1].reshape(-1, found[1].shape[-1])
    mean, scale = stream.mean(axis=0), stream.std(axis=0)
    last = np.random.default_rng(0).integers(0, min(50_000, len(stream)), (number, BATCH))
    found["replay"] = stream[-1 - last]

    def independent(batches):  # the mean of n independent ones has the n-th part of the variance
        means = (batches.mean(axis=1) - mean) / scale
        return 1 / np.mean(means**2)

    return {str(name): independent(batches) for name, batches in found.items()}


def _batches(config, policy, number):
    """Observations [number, BATCH, D] of rollouts, after as many that are not looked at."""
    env, network = rollout.make_env_and_network(config)

    def step(actor, _):
        actor, batch = rollout.collect(config, env, network, policy, actor)
        return actor, batch.obs.reshape(BATCH, -1)

    start = rollout.init(env, network, config.num_envs, jax.random.key(1))
    _, obs = jax.jit(lambda actor: jax.lax.scan(step, actor, length=2 * number))(start)
    return np.asarray(jnp.asarray(obs[number:]), float)


def draw(numbers, path):
    figure, (left, right) = analysis.style.new_figure(10, 3.6, 1, 2)
    for axes, values in ((left, numbers["independent"]), (right, numbers["returns"])):
        claims.draw_bars(axes, values)
    analysis.style.dress(left, f"Independent observations of {BATCH}, by environments")
    analysis.style.dress(right, "Return at equal steps (IQM, ten seeds)")
    return analysis.style.save(figure, [path])


if __name__ == "__main__":
    sys.exit(claims.main(__doc__, measure, draw, __file__))
