"""A3C learns with a broad range of learning rates (the A3C paper's Figure 2).

python experiments/claims/learning_rates.py

As in the paper: 50 rates from LogUniform(1e-4, 1e-2), one seed for each, in five environments, by
simulated A3C with 16 workers. A rate is good where the run ends above half of the way from where
learning began to the best run. The range is from the lowest to the highest of good rates. (Pendulum
was tried, too: no rate had it learned in 400,000 steps.)
"""

import dataclasses
import sys

import numpy as np

from rljax import analysis, presets, sweep
from rljax.a3c.simulation import SimulationConfig
from rljax.cli import claims

HOURS = 0.3
LOW, HIGH, NUMBER, GOOD = 1e-4, 1e-2, 50, 0.5
MINATAR = dict(total_timesteps=300_000, hidden_sizes=(128,), activation="relu", shared_torso=True)
ENVS = {
    "CartPole-v1": dict(total_timesteps=150_000),
    "Acrobot-v1": dict(total_timesteps=300_000),
    "Catch-bsuite": dict(total_timesteps=150_000),
    "Breakout-MinAtar": MINATAR,
    "SpaceInvaders-MinAtar": MINATAR,
}


def measure(lab):
    envs = lab.of(ENVS, {"CartPole-v1": dict(total_timesteps=10_000)})
    own = SimulationConfig(num_workers=16, diagnostics=False)
    points = sweep.random({"learning_rate": sweep.log(LOW, HIGH)}, lab.of(NUMBER, 4), seed=0)
    found = {}
    for env, changes in envs.items():
        config = dataclasses.replace(presets.base("a3c"), env=env, **changes)
        table = lab.sweep(env, config, points, algorithm="a3c_simulated", own=own, num_seeds=1)
        begun = table.groupby("trial")["episodic_return"].first().median()
        returns = claims.finals(table)
        rates = np.array([point["learning_rate"] for point in points])
        is_good = returns > begun + GOOD * (returns.max() - begun)
        ends = np.ptp(np.log10(rates[is_good]))
        share = analysis.estimate(is_good.astype(float), analysis.aggregate_mean)
        of = dict(begun=begun, best=returns.max(), share=share, decades=ends)
        found[env] = dict(rates=rates, returns=returns, good=is_good, **of)
    shares = [x["share"] for x in found.values()]
    sentences = [
        f"{env}: {x['share'].value:.0%} [{x['share'].low:.0%}, {x['share'].high:.0%}] of the rates"
        f" are good, over {x['decades']:.1f} of the range's two powers of ten; the best ends at"
        f" {x['best']:.3g}, from {x['begun']:.3g}."
        for env, x in found.items()
    ]
    number = sum(x.low > 1 / 3 for x in shares)
    answer = f"a third of the range or more in {number} of {len(shares)} environments"
    return claims.Found(answer, sentences, found)


def draw(numbers, path):
    figure, panels = analysis.style.new_figure(15, 3.2, 1, len(numbers))
    for axes, (env, x) in zip(np.atleast_1d(panels), numbers.items()):
        rates, returns, good = (np.array(x[name]) for name in ("rates", "returns", "good"))
        for i, of in enumerate((good, ~good)):
            axes.scatter(rates[of], returns[of], s=14, color=analysis.COLORS[i], marker="ox"[i])
        analysis.style.dress(axes, env)
        axes.set(xscale="log", xlabel="learning rate")
    np.atleast_1d(panels)[0].set_ylabel("return at the end, one seed")
    return analysis.style.save(figure, [path])


if __name__ == "__main__":
    sys.exit(claims.main(__doc__, measure, draw, __file__))
