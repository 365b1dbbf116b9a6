"""Evaluation in environments that Python steps: every episode, a bounded number at a time."""

import dataclasses
import re

import jax
import numpy as np
import pytest
import tiny
from host_probes import Answering, Counted, Endless, NothingLeft, RaisingAtThree, Single, Walk

from rljax import envs, evaluation, rollout
from rljax.config import Config
from rljax.envs import host_envs
from rljax.utils import forkserver

CONFIG = Config(env="host_probes:Counted", hidden_sizes=(4,), num_envs=3)


def evaluated(config, episodes, greedy=True, num_seeds=1, **how):
    """The `Evaluation` of fresh learners."""
    env, network = rollout.make_env_and_network(config)
    keys = jax.random.split(jax.random.key(0), num_seeds)
    spec = env.spec._replace(name="")  # one program for all of one shape
    learners = tiny.init_learners(CONFIG, network, spec, keys)
    return evaluation.evaluate(config, learners, keys, episodes, greedy, **how)


@pytest.fixture
def counted(monkeypatch):
    for name in ("made", "alive", "most", "walked"):
        monkeypatch.setattr(Counted, name, 0)
    envs.make("host_probes:Counted")
    Counted.made = Counted.most = 0
    return Counted


@pytest.mark.parametrize(
    ("num_envs", "most"), [(None, 3), (1, 1), (5, 5), (100, 12)], ids="default 1 5 100".split()
)
def test_environments_are_bounded_and_rest(counted, num_envs, most):
    played = evaluated(CONFIG, 12, num_envs=num_envs)
    assert (counted.made, counted.most, counted.alive) == (most, most, 0)
    assert counted.walked == played.lengths.sum()
    assert played.finished.all()


def test_by_default_there_are_sixteen_at_most(counted):
    evaluated(dataclasses.replace(CONFIG, num_envs=40), 20)
    assert counted.most == 16


@pytest.mark.parametrize("greedy", [pytest.param(True, marks=pytest.mark.slow), False])
def test_all_episodes_count_and_each_has_its_chance(greedy):
    """However many environments play; lengths are told by the seeds alone."""
    (one, four), other = (
        [evaluated(CONFIG, 30, greedy, num_seeds=2, num_envs=number) for number in numbers]
        for numbers in ((1, 4), (30,))
    )
    jax.tree.map(np.testing.assert_array_equal, one, four)
    jax.tree.map(np.testing.assert_array_equal, one, other[0])
    for key, lengths in zip(jax.random.split(jax.random.key(0), 2), one.lengths):
        seeds = host_envs.seeds(jax.random.split(key)[1], 30)
        assert len(set(seeds.tolist())) == 30
        expected = [np.random.default_rng(int(seed)).integers(1, 10) for seed in seeds]
        assert lengths.tolist() == expected
    assert len(np.unique(one.returns)) > 30
    assert np.all(one.returns >= one.lengths)


def test_actions_differ_between_steps_and_episodes():
    """Sampled ones of a policy that is even at first, in episodes that are all the same."""

    class Recording(Walk):
        taken = ()

        def reset(self, *, seed=None, options=None):
            type(self).taken += ([],)
            return super().reset()

        def step(self, action):
            self.taken[-1].append(int(action))
            return super().step(action)

    config = dataclasses.replace(CONFIG, env=Recording)
    evaluated(config, 40, greedy=False, num_envs=1)
    played = [taken for taken in Recording.taken if taken]  # none in the resets to look at it
    assert len(played) == 40
    assert set(map(tuple, played)) == {(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)}


def test_nothing_is_compiled_anew_while_environments_rest(monkeypatch):
    traced, choose = [], rollout.choose

    def counting(*args):
        traced.append(1)
        return choose(*args)

    monkeypatch.setattr(rollout, "choose", counting)
    config = dataclasses.replace(CONFIG, hidden_sizes=(5,))
    evaluated(config, 10, num_seeds=2, num_envs=4)
    evaluated(config, 10, num_seeds=2, num_envs=4)
    assert len(traced) == 1


def test_an_endless_episode_is_cut_and_others_follow():
    told = []
    config = dataclasses.replace(CONFIG, env=Endless)
    played = evaluated(config, 3, num_envs=2, max_steps=7, watch=lambda *now: told.append(now))
    assert played.lengths.tolist() == [[7, 7, 7]]
    assert played.returns.tolist() == [[7.0, 7.0, 7.0]]
    assert not played.finished.any()
    assert told[:2] == [(0, 3, 0), (0, 3, 2)]
    alone = [(2, 3, steps) for steps in range(14, 21)]
    assert [now for now in told if now[2] >= 14] == [*alone, (3, 3, 21)]


def test_an_evaluation_can_be_ended_from_outside(counted):
    def watch(ended, episodes, steps):
        if steps > 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluated(CONFIG, 20, watch=watch)
    assert (counted.walked, counted.alive) == (6, 0)


@pytest.mark.parametrize("at_end", ["none", "missing", "odd"])
@pytest.mark.parametrize("greedy", [True, False])
def test_the_mask_is_not_looked_at_where_an_episode_ends(at_end, greedy):
    config = dataclasses.replace(CONFIG, env=NothingLeft, env_kwargs=(("at_end", at_end),))
    assert evaluated(config, 7, greedy, num_envs=2).returns.tolist() == [[3.0] * 7]


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            RaisingAtThree,
            r"environment 0 of RaisingAtThree at step 3 of episode 1:\n.*fuel",
        ),
        (
            lambda: Answering("reward None"),
            r"environment 0 .* at step 2 of episode 1: reward",
        ),
        (
            lambda: Answering("obs 1e39"),
            r"environment 0 .* at step 2 of episode 1: obs",
        ),
        (
            lambda: Answering("exit"),
            r"environment 0 of .* at step 2 of episode 1:\n.*SystemExit: 3",
        ),
    ],
)
def test_what_goes_wrong_is_told_with_environment_step_and_episode(env, message):
    with pytest.raises(forkserver.EnvError, match=f"(?s)^in an evaluation: {message}"):
        evaluated(dataclasses.replace(CONFIG, env=env), 4)


def test_one_that_cannot_be_opened_is_told_in_a_line(monkeypatch):
    monkeypatch.setattr(Single, "alive", 0)
    config = dataclasses.replace(CONFIG, env=Single)
    with pytest.raises(forkserver.EnvError) as caught:
        evaluated(config, 4, num_envs=2)
    assert re.fullmatch(
        "in an evaluation in 2 environments: env = 'Single': environment 1: RuntimeError: the port"
        " is in use",
        str(caught.value),
    )
    assert Single.alive == 0
    assert evaluated(config, 4, num_envs=1).returns.tolist() == [[3.0] * 4]


@pytest.mark.parametrize("how", [{"num_envs": 0}, {"max_steps": 0}])
def test_bad_input(how):
    (name,) = how
    with pytest.raises(ValueError, match=f"{name} = 0: must be at least 1"):
        evaluated(CONFIG, 4, **how)
