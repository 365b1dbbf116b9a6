"""Parallel workers break the correlation of experience, so that no replay buffer is needed.

python experiments/claims/correlation.py

Batches of 80 steps of CartPole, from 1 to 80 environments, and drawn at random from 50,000 steps of
one, as replay does, by A2C's policies in training and after it (independent.py). Then learning at
equal steps: A2C with these batches, whose returns are so of 80 steps down to 1, DQN with its buffer
and with as many transitions as an update samples; rates tuned alike, greedy policies, ten other
seeds.
"""

import dataclasses
import sys
from functools import partial

from independent import BATCH, observations

from rljax import analysis, presets
from rljax.cli import claims
from rljax.runs import settings

HOURS = 0.1
WORKERS = (1, 4, 16, 80)
NAMED = {"1": "1 environment", "replay": "replay"}
IN_PHASE = " (all episodes last 500 steps, and environments that began together stay in phase)"
HELPS = {1: "of use", 0: "not told apart from none", -1: "worse than the newest transitions alone"}
STEPS = 60_000  # fewer than take all sides to the most, 500
RATES = {"a2c": (0.004, 0.008, 0.016, 0.032, 0.064), "dqn": (0.0005, 0.001, 0.002, 0.004, 0.008)}


def measure(lab):
    base = presets.preset("a2c", "CartPole-v1")
    base = dataclasses.replace(base, total_timesteps=lab.of(base.total_timesteps, 20_000))
    steps = lab.of(STEPS, 5_000)
    shapes = {n: dict(num_envs=n, num_steps=BATCH // n) for n in lab.of(WORKERS, (1, 16))}
    make = partial(observations, base, shapes, lab.of(4000, 50))
    counts = lab.kept("independent observations", make)
    base = dataclasses.replace(base, total_timesteps=steps)
    how = {n: dict(base=dataclasses.replace(base, **shape)) for n, shape in shapes.items()}
    sides = {f"A2C, {n} environment{'s' * (n > 1)}": x for n, x in how.items()}
    preset = settings.start_from("dqn", "CartPole-v1", None)
    of_dqn, (own,) = dataclasses.replace(preset.config, total_timesteps=steps), preset.own
    least = own.gradient_steps * own.replay_batch_size
    for size in (own.buffer_size, least):
        it = dataclasses.replace(own, buffer_size=size)
        sides[f"DQN, a buffer of {size:,}"] = dict(base=of_dqn, algorithm="dqn", own=it)
    returns, rates = {}, {}
    for name, side in sides.items():
        axes = {"learning_rate": lab.of(RATES[side.get("algorithm", "a2c")], (0.004,))}
        rates[name], table = lab.tuned(name, axes=axes, eval_episodes=20, **side)
        returns[name] = claims.finals(table)
    *of_a2c, whole, newest = sides
    pairs = [(name, of_a2c[0]) for name in of_a2c[1:]] + [(whole, newest)]
    *told, buffer = (claims.compare(*(returns[name] for name in pair), pair) for pair in pairs)
    grows = [x[str(max(shapes))] > 2 * x["1"] for x in counts.values()]
    where = " and ".join(stage for stage, x in zip(counts, grows) if x) or "nowhere"
    better = [pair[0] for pair, x in zip(pairs, told) if x.sign > 0]
    worse = [pair[0] for pair, x in zip(pairs, told) if x.sign < 0]
    answer = f"batches are less correlated {where}; than with one environment A2C is better with"
    answer += f" {', '.join(better) or 'none'}, worse with {', '.join(worse) or 'none'}; DQN's"
    answer += f" buffer is {HELPS[buffer.sign]}"
    sentences = [
        f"Independent observations in a batch of {BATCH}, {stage}: "
        + ", ".join(f"{NAMED.get(name, name + ' environments')}: {x:.1f}" for name, x in of.items())
        for stage, of in counts.items()
    ] + [x.sentence for x in (*told, buffer)]
    sentences[1] += lab.of(IN_PHASE, "")
    numbers = {x: claims.summary(y) for x, y in returns.items()}
    numbers = {"independent": counts, "returns": numbers, "rates": rates}
    return claims.Found(answer, sentences, numbers)


def draw(numbers, path):
    figure, (left, right) = analysis.style.new_figure(10, 3.6, 1, 2)
    (early, first), (late, last) = numbers["independent"].items()
    claims.draw_bars(left, first)
    left.plot([*last.values()], [*range(len(last))], "o", color="black", label=late)
    claims.draw_bars(right, numbers["returns"])
    analysis.style.dress(left, f"Independent observations of {BATCH}, {early}")
    left.legend(frameon=False)
    analysis.style.dress(right, "Return at equal steps (IQM, ten seeds)")
    return analysis.style.save(figure, [path])


if __name__ == "__main__":
    sys.exit(claims.main(__doc__, measure, draw, __file__))
