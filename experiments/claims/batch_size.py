"""A2C on an accelerator makes use of a large batch: more environments train faster to a score.

python experiments/claims/batch_size.py

From 4 to 4,096 environments of CartPole: trained steps/s, environment steps until the mean return
of a seed's row of metrics reaches 400 of 500, and both together, the seconds to the score of one
run. The rate of each size is tuned alike, for the fewest steps; ten other seeds. It runs on the
device that JAX finds: on an accelerator steps/s grow until it is full, on a CPU until its cores
are.
"""

import dataclasses
import sys
from functools import partial

import jax
import numpy as np

from rljax import a2c, analysis, presets
from rljax.cli import benchmark, claims
from rljax.utils import seeds

HOURS = 0.2
SIZES, RATES = (4, 16, 64, 256, 1024, 4096), (0.004, 0.008, 0.016, 0.032, 0.064)
TARGET, STEPS, UPDATES = 400, 300_000, 500  # of a run, at least


def measure(lab):
    base = dataclasses.replace(presets.preset("a2c", "CartPole-v1"), total_timesteps=STEPS)
    sizes, axes = lab.of(SIZES, (4, 64)), {"learning_rate": lab.of(RATES, RATES[2:3])}
    base = dataclasses.replace(base, total_timesteps=lab.of(STEPS, 20_000))
    speeds = lab.kept("speeds", partial(_speeds, base, sizes, lab.of(3.0, 0.5)))
    target, steps, rates, seconds = lab.of(TARGET, 25), {}, {}, {}
    to_target, sentences = partial(claims.steps_to, target=target), []
    for size in sizes:
        most = lab.of(max(STEPS, UPDATES * base.num_steps * size), base.total_timesteps)
        config = dataclasses.replace(base, num_envs=size, total_timesteps=most)
        how = dict(score=lambda table: -to_target(table))
        rates[size], table = lab.tuned(f"{size} environments", config, axes, **how)
        steps[size] = to_target(table)
        seconds[size] = steps[size] / speeds[str(size)]
        needed, reached = claims.summary(steps[size]), np.sum(steps[size] <= most)
        sentences.append(
            f"{size:,} environments: {speeds[str(size)]:,.0f} steps/s; {target} is reached by"
            f" {reached} of {len(steps[size])} seeds, after {claims.told(needed, ',.0f')} steps."
        )
    fastest = min(sizes[1:], key=lambda size: analysis.iqm(seconds[size]))
    names = [f"{size:,} environments" for size in (sizes[0], fastest)]
    told = claims.compare(seconds[sizes[0]], seconds[fastest], names)
    answers = {
        1: f"true up to {fastest:,} environments here",
        0: "not shown here",
        -1: "false here",
    }
    answer = answers[told.sign]
    both = {"steps": steps, "seconds": seconds}
    found = {name: {n: claims.summary(x) for n, x in each.items()} for name, each in both.items()}
    sentences.append(f"Seconds to {target}: {told.sentence}")
    return claims.Found(answer, sentences, {"speeds": speeds, "rates": rates, **found})


def _speeds(base, sizes, length):
    config = dataclasses.replace(base, total_timesteps=2**30)

    def counts(size):
        of_size = dataclasses.replace(config, num_envs=size)
        for states, metrics in a2c.chunks(of_size, seeds.keys([0])):
            jax.block_until_ready(states)
            yield float(metrics.updates[0]) * of_size.batch_size

    return {size: benchmark.speed(counts(size), length) for size in sizes}


def draw(numbers, path):
    figure, panels = analysis.style.new_figure(12, 3.4, 1, 3)
    sizes = [int(size) for size in numbers["speeds"]]
    analysis.style.draw_line(panels[0], 0, sizes, list(numbers["speeds"].values()))
    for axes, name in zip(panels[1:], ("steps", "seconds")):
        claims.draw_intervals(axes, 0, sizes, list(numbers[name].values()))
    titles = ("Trained steps/s", f"Environment steps to {TARGET}", "Seconds to the score")
    for axes, title in zip(panels, titles):
        analysis.style.dress(axes, title)
        axes.set(yscale="log", xlabel="environments")
        claims.mark_places(axes, sizes)
    return analysis.style.save(figure, [path])


if __name__ == "__main__":
    sys.exit(claims.main(__doc__, measure, draw, __file__))
