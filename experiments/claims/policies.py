"""A2C handles continuous actions where DQN cannot, and learns a stochastic policy where the best
deterministic one fails.

python experiments/claims/policies.py

Continuous actions: Pendulum, which is swung up at returns above -300 and has about -1,200 at first.
DQN is given it as it is, and with five torques (torques.py) and a tenth of A2C's steps. Stochastic
policies: the corridor of Sutton and Barto's example 13.1 (corridor.py), whose states look alike,
cut at 500 steps. The best policy goes right with probability 0.59 and has -11.6, a fresh one with
0.5 and -12. A deterministic one never arrives; at best it has -44 with a random action in ten, as
DQN's last epsilon is here. Returns are of training's last tenth, and DQN's also without epsilon.
"""

import dataclasses
import sys

import jax
import numpy as np
from corridor import expected_return

import rljax
from rljax import analysis, presets
from rljax.cli import claims
from rljax.config import Config
from rljax.dqn_config import DQNConfig

HOURS = 0.1
RATES = {"a2c": [4e-3 * 2**i for i in range(6)], "dqn": [2.5e-4 * 2**i for i in range(6)]}
CORRIDOR = dict(env="corridor:Corridor", total_timesteps=200_000)
TORQUES = dict(env="torques:Torques", total_timesteps=100_000, gamma=0.95)
EXPLORES = DQNConfig(exploration_fraction=0.3, exploration_final=0.1)
SIDES = {
    "A2C on Pendulum": presets.preset("a2c", "Pendulum-v1"),
    "DQN on Pendulum with five torques": Config(**presets.DQN_BASE | TORQUES),
    "A2C in the corridor": Config(**CORRIDOR, num_steps=16),
    "DQN in the corridor": Config(**presets.DQN_BASE | CORRIDOR),
}
SWUNG_UP, FIXED = -300, expected_return(0.95)


def measure(lab):
    found, tuned, sides = {}, {}, [*SIDES]
    for side, config in SIDES.items():
        algorithm, own = ("dqn", EXPLORES) if "DQN" in side else ("a2c", None)
        config = dataclasses.replace(config, total_timesteps=lab.of(config.total_timesteps, 6_400))
        axes = {"learning_rate": lab.of(RATES[algorithm], RATES[algorithm][2:3])}
        best, table = lab.tuned(side, config, axes, algorithm=algorithm, own=own)
        found[side] = {**claims.summary(claims.finals(table)), **best}
        tuned[side] = dataclasses.replace(config, **best)
    right = claims.summary(lab.kept("right", lambda: _right(lab, tuned[sides[2]])))
    how = dict(algorithm="dqn", own=EXPLORES, num_seeds=lab.seeds(), eval_episodes=20)
    greedy = claims.summary(claims.finals(lab.sweep("greedy", tuned[sides[3]], [best], **how)))
    pairs = [(pair, [found[side]["seeds"] for side in pair]) for pair in (sides[:2], sides[2:])]
    pendulum, corridor = (claims.compare(*seeds, pair) for pair, seeds in pairs)
    continuous = bool(refusal := _refusal()) and found[sides[0]]["low"] > SWUNG_UP
    stochastic = corridor.sign > 0 and found[sides[2]]["low"] > FIXED and right["low"] > 0.5
    answers = "false", "true of continuous actions only", "true of the stochastic policy only"
    sentences = [f"{side}: {claims.told(found[side])}." for side in sides]
    sentences[0] += f" DQN: {refusal or 'it trains'}."
    sentences[2] += f" Its policy goes right with {claims.told(right, '.2f')}."
    sentences[3] += f" Without exploration: {claims.told(greedy)}."
    sentences += [pendulum.sentence, corridor.sentence]
    answer = (*answers, "true")[continuous + 2 * stochastic]
    answer += "; given five torques, DQN is not below A2C" * (pendulum.sign <= 0)
    return claims.Found(answer, sentences, dict(sides=found, right=right, greedy=greedy))


def _right(lab, config):
    """How often policies go right."""
    run = claims.trained("a2c", config=config, num_seeds=lab.seeds())
    seen = np.ones((10_000, 1), np.float32)
    return [float(np.mean(run.policy(seed)(seen, jax.random.key(0)))) for seed in run.seeds]


def _refusal():  # what DQN says to continuous actions
    try:
        rljax.train("dqn", "Pendulum-v1", total_timesteps=2_000, num_seeds=1, quiet=True)
    except ValueError as error:
        return str(error)


def draw(numbers, path):
    figure, panels = analysis.style.new_figure(10, 4, 1, 2)
    panels[1].plot(line := np.linspace(0.04, 0.96, 200), [*map(expected_return, line)], color="0.6")
    for i, side in enumerate(SIDES):
        axes, returns = panels[i // 2], np.array(numbers["sides"][side]["seeds"], float)
        places = i + np.linspace(-0.2, 0.2, len(returns))
        if i >= 2:  # DQN goes right or left, but for every tenth action
            acts = np.where(returns > 1.5 * FIXED, 0.95, 0.05)
            places = acts if "DQN" in side else np.array(numbers["right"]["seeds"], float)
        axes.scatter(places, returns, color=analysis.COLORS[i % 2], label=side, zorder=3)
        axes.legend(frameon=False)
    panels[0].set(xlim=(-0.5, 1.5), xticks=[], ylabel="final return", title="Pendulum")
    panels[1].set(xlabel="probability of going right", ylim=(-90, 0), title="corridor")
    return analysis.style.save(figure, [path])


if __name__ == "__main__":
    sys.exit(claims.main(__doc__, measure, draw, __file__))
