"""A2C is sooner at a score where environments are fast, and A3C where they are slow.

python experiments/claims/wall_clock.py

CartPole in JAX, stepped by Python, and slowed by a sleep of 1 or 10 ms in each step (slowed.py):
the time from the first step to the first row of metrics (2,000 steps) with a mean return of 195 of
500, or to the end of the run. DQN trains in JAX only. Each side has three shapes (machine.py), with
more processes than cores where these sleep, and five rates for each, tried in JAX, A3C simulated,
for the fewest steps to the score; the shape runs that should take the least time by these steps and
its measured steps/s. The model (machine.py) is of the speeds of one shape where nothing sleeps.
"""

import sys
from functools import partial

import machine
import numpy as np
import race

from rljax import analysis
from rljax.cli import claims

HOURS = 0.4
JAX = {"a2c": ((8, 0), (16, 0), (32, 0)), "a3c": ((1, 1), (1, 2), (8, 2))}
PYTHON = {"a2c": ((8, 0), (16, 0), (16, 2)), "a3c": ((1, 2), (1, 4), (8, 2))}
SLOW = {"a2c": ((16, 16), (32, 32), (64, 64)), "a3c": ((1, 8), (1, 16), (1, 32))}
KINDS = {"JAX": JAX | {"dqn": ((4, 0), (8, 0), (16, 0))}, 0: PYTHON, 1: SLOW, 10: SLOW}
NAMES = {"JAX": "JAX", 0: "Python", 1: "1 ms", 10: "10 ms"}
PARTS = {"a2c": (16, 0), "a3c": (1, 1)}  # what the model is made of
QUICK = {"JAX": {"a2c": [(16, 0)], "a3c": [(1, 1)], "dqn": [(8, 0)]}}
QUICK[1] = {"a2c": [(16, 16)], "a3c": [(1, 1)]}


def measure(lab):
    numbers, told, is_right = {"kinds": {}, "speeds": {x: [] for x in PARTS}}, [], {}
    env = lab.kept("env", machine.env_seconds)
    for kind, sides in lab.of(KINDS, QUICK).items():
        found = numbers["kinds"][NAMES[kind]] = {}
        for algorithm, shapes in sides.items():
            tried = []
            for shape in shapes:
                steps, rate = race.needed(lab, algorithm, shape)
                speed = _speed(lab, algorithm, kind, shape)
                tried.append((steps / speed, shape, rate))
                if kind != "JAX":
                    pair = speed, _predicted(lab, algorithm, kind, shape, env)
                    numbers["speeds"][algorithm].append(pair)
            expected, shape, rate = min(tried)
            runs = [race.run(lab, algorithm, kind, shape, rate, i) for i in range(lab.of(10, 1))]
            seconds = claims.summary(run["seconds"] for run in runs)
            found[algorithm] = {**seconds, "shape": shape, "rate": rate, "runs": runs}
            what = f"{claims.told(seconds, '.3g')} s, where {expected:.3g} were expected;"
            what += f" {sum(run['reached'] for run in runs)} of {len(runs)} runs reach the score"
            told.append(f"{NAMES[kind]}: {algorithm.upper()} {shape} {what}.")
        seconds = [np.log(found[x]["seeds"]) for x in PARTS]
        compared = claims.compare(*seconds, ("the log of A2C's seconds", "that of A3C's"))
        told.append(f"{NAMES[kind]}: {compared.sentence}")
        is_right[NAMES[kind]] = compared.sign == (-1 if kind in ("JAX", 0) else 1)
    for algorithm, pairs in numbers["speeds"].items():
        error = np.exp(np.median(np.abs(np.log(pairs) @ [1, -1])))
        told.append(f"{algorithm.upper()}: the model is off by a factor of {error:.2f} (median).")
    where = ", ".join(name for name in is_right if is_right[name])
    answer = "true" if all(is_right.values()) else f"true of {where} only" if where else "false"
    return claims.Found(answer, told, numbers)


def _speed(lab, algorithm, kind, shape):
    config, own = machine.settings(algorithm, kind, shape, 2**30)
    make = partial(machine.measured, algorithm, config, own, lab.of(5.0, 1.0))
    return lab.kept(f"speed_{algorithm}_{kind}_{shape[0]}x{shape[1]}", make)


def _predicted(lab, algorithm, kind, shape, env):
    part, (config, _) = PARTS[algorithm], machine.settings(algorithm, kind, shape, 2**30)
    rest = part[0] * config.num_steps * (1 / _speed(lab, algorithm, 0, part) - env)
    return machine.predicted(algorithm, config, shape, kind / 1000, env, rest)


def draw(numbers, path):
    figure, (left, right) = analysis.style.new_figure(10, 4, 1, 2)
    for i, algorithm in enumerate(("a2c", "a3c", "dqn")):
        look = dict(color=analysis.COLORS[i])
        each = [sides.get(algorithm, {}).get("seeds", []) for sides in numbers["kinds"].values()]
        points = [(j + i / 5 - 0.2, float(x)) for j, seeds in enumerate(each) for x in seeds]
        left.scatter(*np.transpose(points), **look, label=algorithm.upper())
        pairs = np.reshape(numbers["speeds"].get(algorithm, []), (-1, 2))
        right.scatter(pairs[:, 1], pairs[:, 0], **look)
    right.axline((1000, 1000), (2000, 2000), color="0.6")
    left.set_xticks(range(len(numbers["kinds"])), numbers["kinds"])
    left.set(yscale="log", ylabel="seconds to the score", title="CartPole to 195 of 500")
    right.set(xscale="log", yscale="log", xlabel="steps/s of the model", ylabel="measured")
    left.legend(frameon=False)
    return analysis.style.save(figure, [path])


if __name__ == "__main__":
    sys.exit(claims.main(__doc__, measure, draw, __file__))
