"""More workers of A3C learn as much from the same steps, in a time that shrinks with their number
(the A3C paper's Figures 3 and 4 and Table 2).

python experiments/claims/workers.py

Simulated workers on a stated machine: a gradient takes a worker an exponential time of mean 1, and
the holder 0.02. Steps, and simulated time, to a row's mean return of 400 of CartPole's 500; rates
are tuned for the fewest steps. A2C there, with as many environments, waits for its slowest worker,
and then 0.02. Real processes, 1 and 2 workers, three seeds: seconds in gymnasium's CartPole.
"""

import dataclasses
import sys
from functools import partial

from staleness import SERVICE, times_as_soon

from rljax import analysis, presets
from rljax.a3c.simulation import SimulationConfig
from rljax.cli import claims

HOURS = 0.2
WORKERS, RATES = (1, 2, 4, 8, 16), (0.00125, 0.0025, 0.005, 0.01, 0.02)
PAPER = {1: 1, 2: 2.1, 4: 3.7, 8: 6.9, 16: 12.5}  # Table 2, time to a score
STEPS, TARGET = 300_000, 400


def measure(lab):
    target, numbers, steps = lab.of(TARGET, 25), lab.of(WORKERS, (1, 4)), lab.of(STEPS, 10_000)
    found, rates = {"A3C": {}, "A2C": {}}, lab.of(RATES, RATES[2:3])
    score = lambda table: -claims.steps_to(table, target)  # noqa: E731
    for n in numbers:  # the last of them is told of below
        own = SimulationConfig(num_workers=n, service=f"constant:{SERVICE}", diagnostics=False)
        config = dataclasses.replace(presets.base("a3c"), total_timesteps=steps)
        how = dict(axes={"learning_rate": rates}, algorithm="a3c_simulated", own=own)
        _, table = lab.tuned(f"A3C, {n}", config, score=score, **how)
        found["A3C"][n] = _reached(table, target)
        config = dataclasses.replace(presets.base("a2c"), total_timesteps=steps, num_envs=n)
        axes = {"learning_rate": [3 * rate for rate in rates]}  # of mean gradients, not sums
        _, table = lab.tuned(f"A2C, {n}", config, axes, score=score)
        slowest = sum(1 / i for i in range(1, n + 1))  # the mean longest of n exponential times
        table = table.assign(simulated_time=table["updates"] * (slowest + SERVICE))
        found["A2C"][n] = _reached(table, target)
    seeds = range(lab.of(3, 1))
    real = {
        n: [lab.kept(f"real, {n}, {i}", partial(_real, n, i, steps, target)) for i in seeds]
        for n in (1, 2)
    }
    speed_up = {
        name: {n: times_as_soon(of[1]["time"]["seeds"], x["time"]["seeds"]) for n, x in of.items()}
        for name, of in found.items()
    }
    few, many = (found["A3C"][x]["steps"]["seeds"] for x in (1, n))
    steps = claims.compare(many, few, (f"{n} workers", "1 worker"))
    text = "{:.1f} [{:.1f}, {:.1f}] times as fast with {}"
    a3c, a2c = (", ".join(text.format(*x, n) for n, x in y.items()) for y in speed_up.values())
    paper = ", ".join(f"{x} with {n}" for n, x in PAPER.items())
    told = "; ".join(f"{n}: " + ", ".join(f"{x:.1f}" for x in xs) for n, xs in real.items())
    same = {1: "more", 0: "no difference is shown", -1: "fewer"}
    answer = f"{text.format(*speed_up['A3C'][n], n)} workers; steps needed: {same[steps.sign]}"
    sentences = [
        f"In simulated time to {target}, A3C: {a3c}; A2C: {a2c}; paper, Atari: {paper}.",
        f"Environment steps to {target}: {steps.sentence}",
        f"Seconds of real processes to {target}, by workers, a number for each seed: {told}.",
    ]
    return claims.Found(answer, sentences, dict(found=found, real=real, speed_up=speed_up))


def _reached(table, target):
    of = {"steps": "env_steps", "time": "simulated_time"}
    return {x: claims.summary(claims.steps_to(table, target, y)) for x, y in of.items()}


def _real(number, seed, steps, target):
    how = dict(seed=seed, num_seeds=1, num_workers=number, preset="none", learning_rate=0.005)
    how |= dict(env="gymnasium/CartPole-v1", total_timesteps=steps)
    run = claims.trained("a3c", **how)
    return float(claims.steps_to(run.metrics.assign(trial=0), target, "wall_seconds")[0])


def draw(numbers, path):
    figure, panels = analysis.style.new_figure(12, 3.6, 1, 3)
    for i, (name, of) in enumerate(numbers["found"].items()):
        places = [int(n) for n in of]
        for axes, what in zip(panels, ("steps", "time")):
            claims.draw_intervals(axes, i, places, [x[what] for x in of.values()], name)
        middle, *ends = zip(*numbers["speed_up"][name].values())
        analysis.style.draw_line(panels[2], i, places, middle, ends, name)
    analysis.style.draw_line(panels[2], 4, [*PAPER], [*PAPER.values()], label="the paper, Atari")
    for axes, title in zip(panels, ("Steps to the score", "Simulated time to it", "Speed-up")):
        analysis.style.dress(axes, title)
        axes.set(xlabel="workers", yscale="log")
        claims.mark_places(axes, [*PAPER])
    panels[2].legend(frameon=False)
    return analysis.style.save(figure, [path])


if __name__ == "__main__":
    sys.exit(claims.main(__doc__, measure, draw, __file__))
