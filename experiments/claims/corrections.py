"""Corrections undo the harm of staleness: of data V-trace above importance ratios above nothing
(IMPALA's Table 2), and the decoupled objective where the plain one collapses (AReaL's Table 3).

python experiments/claims/corrections.py

Simulated A3C, every gradient, or all data, the same number of versions old. For each correction and
age five seeds choose one of three rates, and ten others are the result. ppo_clip and decoupled take
four gradient steps on the same data; ppo_clip, by ratios to the policy that acted, is the plain
objective. A correction is better where the difference's interval is above 0 (by chance in 4.5%).
"""

import dataclasses
import itertools
import sys

import jax
import numpy as np
from staleness import ENVS

from rljax import analysis, presets
from rljax.a3c.simulation import SimulationConfig
from rljax.cli import claims

HOURS = 0.6
AGES, RATES = (4, 16, 64), (2.5e-3, 5e-3, 1e-2)
KINDS = {
    "stale gradients": ("none", "staleness_scaling", "dc_asgd_c", "dc_asgd_a"),
    "stale data": ("none", "importance", "vtrace", "ess_scaling"),
    "stale data, 4 epochs": ("ppo_clip", "decoupled"),
}
HOW = dict(zip(KINDS, ({}, dict(stale="data"), dict(stale="data", data_epochs=4))))
CLAIMS = {  # which is said to be better than which
    "V-trace is better than importance ratios": ("stale data", "vtrace", "importance"),
    "importance ratios are better than nothing": ("stale data", "importance", "none"),
    "decoupled is better than plain": ("stale data, 4 epochs", "decoupled", "ppo_clip"),
    "a smaller rate for older gradients helps": ("stale gradients", "staleness_scaling", "none"),
    "delay compensation helps": ("stale gradients", "dc_asgd_a", "none"),
}


def measure(lab):
    envs, ages = lab.of(ENVS, {"CartPole-v1": 10_000}), lab.of(AGES, AGES[:1])
    returns = {env: {} for env in envs}
    for env, steps in envs.items():
        config = dataclasses.replace(presets.base("a3c"), env=env, total_timesteps=steps)
        for kind, names in lab.of(KINDS, {"stale data": ("none", "importance")}).items():
            own = SimulationConfig(num_workers=8, diagnostics=False, **HOW[kind])
            axes = {"correction": names, "staleness": [f"constant:{age}" for age in ages]}
            axes |= {"learning_rate": lab.of(RATES, RATES[:2])}
            how = dict(algorithm="a3c_simulated", own=own, first=0, num_seeds=lab.of(15, 4))
            found = claims.finals(lab.sweep(f"{env}, {kind}", config, axes, **how))
            shape = len(names), len(ages), len(axes["learning_rate"]), how["num_seeds"]
            returns[env][kind] = dict(zip(names, map(_chosen, found.reshape(shape))))
    told = {claim: _tell(returns, ages, *pair) for claim, pair in CLAIMS.items()}
    answer = "; ".join(f"{claim}: {x}" for claim, (x, _) in told.items())
    sentences = [f"{claim}: {x or 'decided nowhere'}." for claim, (_, x) in told.items()]
    found = jax.tree.map(lambda of_ages: [*map(claims.summary, of_ages)], returns)
    return claims.Found(answer, sentences, {"ages": ages, "envs": found})


def _chosen(returns):
    """[ages, other seeds] with the rate that a third of the seeds [ages, rates, seeds] choose."""
    number = returns.shape[-1] // 3
    best = analysis.iqm(returns[..., :number]).argmax(axis=-1)
    return returns[np.arange(len(best)), best, number:]


def _tell(returns, ages, kind, name, other):
    """(in how many of all cells one is better, and where each is)."""
    sides = {env: x[kind] for env, x in returns.items() if name in x.get(kind, ())}
    where = {"better": [], "worse": []}
    for env, (i, age) in (cells := [*itertools.product(sides, enumerate(ages))]):
        told = analysis.compare(sides[env][name][i], sides[env][other][i])
        if told.is_decided:
            sign = "better" if told.difference.value > 0 else "worse"
            where[sign].append(f"{sign} in {env} at {age} by {abs(told.difference.value):.3g}")
    better, worse = len(where["better"]), len(where["worse"])
    numbers = f"in {better} of {len(cells)} cells, and worse in {worse}"
    numbers += " (two may be chance)" * (0 < max(better, worse) < 3)  # three: 0.01
    return numbers, ", ".join(where["better"] + where["worse"])


def draw(numbers, path):
    envs, kinds = numbers["envs"], next(iter(numbers["envs"].values()))
    figure, panels = analysis.style.new_figure(12, 2.8 * len(envs), len(envs), len(kinds))
    for row, (env, x) in zip(np.reshape(panels, (len(envs), -1)), envs.items()):
        for axes, (kind, of_kind) in zip(row, x.items()):
            for i, (name, found) in enumerate(of_kind.items()):
                claims.draw_intervals(axes, i, numbers["ages"], found, name)
            analysis.style.dress(axes, f"{env}, {kind}")
            axes.set(xlabel="versions old", ylabel="return (IQM)")
            claims.mark_places(axes, numbers["ages"])
            axes.legend(frameon=False, fontsize="small")
    return analysis.style.save(figure, [path])


if __name__ == "__main__":
    sys.exit(claims.main(__doc__, measure, draw, __file__))
