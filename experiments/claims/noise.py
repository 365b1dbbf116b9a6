"""A2C removes the noise of asynchronous updates.

python experiments/claims/noise.py

Two noises are told apart. That of small batches: the variance of a gradient by the square of its
mean, of A2C's batches of 80 steps and of A3C's of 5, at the same parameters, a quarter into A2C's
training. That of asynchrony: the cosine of stale and fresh gradients of the same experience, over
a run. Then returns after equal steps, each side with its rate tuned alike, and ten other seeds:
what A3C without staleness lacks to A2C is not asynchrony's, what staleness costs beyond that is.
"""

import dataclasses
import sys
from functools import partial

import jax
import numpy as np

from rljax import a2c, analysis, learner, presets, rollout
from rljax.a3c.simulation import SimulationConfig
from rljax.cli import claims
from rljax.utils import pytrees

HOURS = 0.1
ENVS = {"CartPole-v1": 100_000, "Acrobot-v1": 200_000}
AGES = (0, 1, 4, 16, 64)
RATES = {"a2c": (0.004, 0.008, 0.016, 0.032, 0.064), "a3c": (0.00125, 0.0025, 0.005, 0.01, 0.02)}


def measure(lab):
    numbers, sentences, verdicts = {}, [], {}
    for env, steps in lab.of(ENVS, {"CartPole-v1": 10_000}).items():
        sync, single = (
            dataclasses.replace(presets.base(name), env=env, total_timesteps=steps)
            for name in ("a2c", "a3c")
        )
        shapes = {"A2C": sync, "A3C": dataclasses.replace(sync, num_envs=1)}
        noise = lab.kept(f"{env}, gradients", partial(_noises, sync, shapes, lab.of(2000, 50)))
        axes = {"learning_rate": lab.of(RATES["a2c"], (0.016,))}
        best, table = lab.tuned(f"{env}, A2C", sync, axes)
        finals, cosine, rates = {"A2C": claims.finals(table)}, {}, {"A2C": best}
        axes = {"learning_rate": lab.of(RATES["a3c"], (0.005,))}
        for age in lab.of(AGES, (0, 4)):
            name = f"A3C, staleness {age}"
            own = SimulationConfig(num_workers=16, staleness=f"constant:{age}")
            how = dict(algorithm="a3c_simulated", own=own)
            rates[name], table = lab.tuned(f"{env}, {name}", single, axes, **how)
            finals[name], cosine[age] = claims.finals(table), float(table["cosine"].mean())
        best_batch, fresh, *stale = finals
        pairs = [(best_batch, fresh), *((fresh, old) for old in stale)]
        told = [claims.compare(*(finals[name] for name in pair), pair) for pair in pairs]
        verdicts[env] = told[0].sign > 0, told[-1].sign > 0
        ratio = noise["A3C"] / noise["A2C"]
        sentences += [
            f"{env}: a gradient's variance by its squared mean is {noise['A2C']:.2f} in A2C, and"
            f" {ratio:.1f} times that in A3C, whose batches are {sync.num_envs} times smaller.",
            f"{env}: cosine of stale and fresh gradients, by staleness: "
            + ", ".join(f"{age}: {x:.2f}" for age, x in cosine.items()),
            *(f"{env}: {x.sentence}" for x in told),
        ]
        returns = {x: claims.summary(y) for x, y in finals.items()}
        numbers[env] = dict(noise=noise, cosine=cosine, rates=rates, returns=returns)
    batch, age = (", ".join(x for x in verdicts if verdicts[x][i]) or "none" for i in range(2))
    answer = f"shown to lose: staleness {AGES[-1]} in {age}, small batches in {batch}"
    return claims.Found(answer, sentences, numbers)


def _noises(sync, shapes, number):
    begun = dataclasses.replace(sync, total_timesteps=sync.total_timesteps // 4, anneal_lr=False)
    state = jax.jit(a2c.train)(begun, jax.random.key(0))[0].learner
    return {name: _noise(config, state, number) for name, config in shapes.items()}


def _noise(config, state, number):
    """The variance of gradients of one policy by the square of their mean."""
    env, network = rollout.make_env_and_network(config)

    def step(actor, _):
        actor, batch = rollout.collect(config, env, network, state, actor)
        actor, found = learner.compute_gradients(config, network, state, actor, batch)
        return actor, pytrees.ravel(found.gradients)

    start = rollout.init(env, network, config.num_envs, jax.random.key(1))
    _, found = jax.jit(lambda actor: jax.lax.scan(step, actor, length=2 * number))(start)
    found = np.asarray(found, float)[number:]
    variance = np.var(found, axis=0, ddof=1).sum()
    return variance / max(np.sum(found.mean(axis=0) ** 2) - variance / len(found), 1e-12)


def draw(numbers, path):
    figure, panels = analysis.style.new_figure(5.4 * len(numbers), 3.6, 1, len(numbers))
    for axes, (env, found) in zip(np.atleast_1d(panels), numbers.items()):
        claims.draw_bars(axes, found["returns"])
        analysis.style.dress(axes, f"{env}: return at equal steps (IQM)")
    return analysis.style.save(figure, [path])


if __name__ == "__main__":
    sys.exit(claims.main(__doc__, measure, draw, __file__))
