"""Wrappers by name, with values, and one's own: against plain loops over what they wrap."""

import dataclasses
import json
import re

import gymnasium
import jax
import numpy as np
import pytest
import small_runs
import trails
from test_contract import ENVS, play

import rljax
from rljax import Config, a3c, envs, rollout, sweep
from rljax.cli.flags import parse
from rljax.cli.space import parse as parse_axis
from rljax.config import WorkerConfig
from rljax.envs import jax_envs
from rljax.runs import directory
from rljax.sweep import points

STEPS = 80
FORMS = ["InJax", "MaskedInJax", "OnHost", "MaskedOnHost"]
OWN = {"InJax": "trails:halved", "OnHost": "trails:Halved"}


def played(form, wrappers, seed=0, vectorization="sync", **more):
    """(first observations, Step, actions) of random actions."""
    how = f"trails:{form}", (), (), ENVS, vectorization
    env = envs.make(*how, wrappers=wrappers, **more)
    actions = np.random.default_rng(seed).integers(3, size=(STEPS, ENVS), dtype=np.int32)
    return *play(env, actions, seed), actions


class Game:
    """What an environment of `trails` does from a first observation on, and its wrappers, innermost
    first, which are pairs of a name and a number."""

    def __init__(self, obs, wrappers, masked):
        self.obs, self.wrappers, self.masked = np.array(obs), wrappers, masked
        self.ages = [0] * len(wrappers)

    def step(self, action, level=None):
        """(obs, reward, score, terminated, truncated)."""
        level = len(self.wrappers) if level is None else level
        if level == 0:
            return self.bare_step(action)
        name, number = self.wrappers[level - 1]
        obs, reward, score, terminated, truncated = self.step(action, level - 1)
        if name == "clip_reward":
            reward = min(max(reward, -number), number)
        if name == "time_limit":
            self.ages[level - 1] += 1
            truncated = truncated or self.ages[level - 1] == number
        if name == "action_repeat":
            for _ in range(number - 1):
                if terminated or truncated or (self.masked and self.obs[0] % 3 == action):
                    break
                obs, more, more_score, terminated, truncated = self.step(action, level - 1)
                reward, score = reward + more, score + more_score
        return obs, reward, score, terminated, truncated

    def bare_step(self, action):
        mark, _, time, length, how = self.obs
        mark, reward = trails.after(mark, action)
        self.obs = np.float32([mark, action, time + 1, length, how])
        ends = time + 1 == length
        return self.obs, reward, reward, ends and how != 1, ends and how != 0


def check(first, steps, actions, wrappers, masked):
    """That steps are those of games; returns the number of actions that were not the given ones."""
    is_sticky = ("sticky_actions" in dict(wrappers)) and wrappers[-1][0] == "sticky_actions"
    games, before, stuck = [Game(obs, wrappers, masked) for obs in first], [None] * ENVS, 0
    for t in range(STEPS):
        for i, game in enumerate(games):
            action = actions[t, i]
            if is_sticky and steps.final_obs[t, i, 1] != action:
                assert before[i] is not None
                assert not (masked and game.obs[0] % 3 == before[i])
                action, stuck = before[i], stuck + 1
            obs, reward, score, *flags = game.step(action)
            np.testing.assert_array_equal(steps.final_obs[t, i], obs)
            assert (steps.terminated[t, i], steps.truncated[t, i]) == tuple(flags)
            np.testing.assert_allclose(steps.reward[t, i], reward, rtol=1e-5, atol=1e-5)
            if steps.score is not None:
                np.testing.assert_allclose(steps.score[t, i], score, rtol=1e-5, atol=1e-5)
            before[i] = action
            if any(flags):
                games[i], before[i] = Game(steps.obs[t, i], wrappers, masked), None
                assert steps.obs[t, i, 2] == 0
            else:
                np.testing.assert_array_equal(steps.obs[t, i], obs)
    return stuck


ORDERS = {
    "clip": [("clip_reward", 1)],
    "wide clip": [("clip_reward", 1.5)],
    "limit": [("time_limit", 4)],
    "repeat": [("action_repeat", 3)],
    "one": [("action_repeat", 1), ("time_limit", 1)],
    "clip of repeat": [("action_repeat", 3), ("clip_reward", 1)],
    "repeat of clip": [("clip_reward", 1), ("action_repeat", 3)],
    "limit of repeat": [("action_repeat", 2), ("time_limit", 3)],
    "repeat of limit": [("time_limit", 5), ("action_repeat", 2)],
    "sticky": [("sticky_actions", 0.5)],
    "sticky repeat": [("action_repeat", 2), ("time_limit", 6), ("sticky_actions", 0.25)],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("form", FORMS)
def test_wrappers_do_as_a_plain_loop(form, order):
    wrappers, masked = ORDERS[order], form.startswith("Masked")
    first, steps, actions = played(form, [f"{name}={x}" for name, x in wrappers])
    stuck = check(first, steps, actions, wrappers, masked)
    has_score = "clip_reward" in dict(wrappers)
    assert (steps.score is not None) == has_score
    if has_score:
        assert steps.score.dtype == np.float32
        assert (steps.score != steps.reward).any()
    if "sticky" in order:
        assert stuck > 10
    if masked:
        assert (steps.mask == (np.arange(3) != steps.obs[..., :1] % 3)).all()
    ends = steps.terminated * 2 + steps.truncated
    if order != "one":
        assert set(np.unique(ends)) == {0, 1, 2, 3}


def test_the_action_before_is_taken_as_often_as_asked():
    """Where it is not the given one, which it is in a third of the steps."""
    for form in ("InJax", "OnHost"):
        number, stuck = 0, 0
        for seed in range(6):
            first, steps, actions = played(form, ("sticky_actions=0.3",), seed)
            stuck += check(first, steps, actions, [("sticky_actions", 0.3)], False)
            number += ENVS * STEPS - (steps.terminated | steps.truncated).sum()
        rate = 0.3 * 2 / 3
        assert abs(stuck / number - rate) < 4 * np.sqrt(rate * (1 - rate) / number)
        first, steps, actions = played(form, ("sticky_actions=0",))
        assert check(first, steps, actions, [("sticky_actions", 0)], False) == 0


def test_in_processes_too_an_action_that_sticks_is_the_one_before():
    """Their actions come in memory that is used again."""
    actions = np.linspace(-1, 1, 40, dtype=np.float32).reshape(20, 2, 1)
    seen = []
    for how in ("sync", "async"):
        env = envs.make("host_probes:Pushed", (), (), 2, how, wrappers=("sticky_actions=0.5",))
        with env.open() as running:
            running.reset([3, 4])
            seen.append(np.stack([running.step(row).obs for row in actions]))
    np.testing.assert_array_equal(*seen)
    assert 5 < (seen[0] != actions).sum() < 35


@pytest.mark.slow
def test_chance_on_the_host_follows_the_seed_and_is_not_the_environments():
    runs = [
        played("OnHost", ("sticky_actions=0.5",), seed=3, vectorization=how)[:2]
        for how in ("sync", "sync", "async")
    ]
    for other in runs[1:]:
        jax.tree.map(np.testing.assert_array_equal, runs[0], other)
    env = envs.make("trails:OnHost", wrappers=("sticky_actions=0.5", "clip_reward"))
    with env.open() as running:
        running.reset([7])
        (guarded,) = running._envs.envs
        drawn, own = guarded.generator.random(3), np.random.default_rng(7).random(3)
    assert not np.isin(drawn, own).any()


@pytest.mark.slow
def test_steps_in_processes_have_scores():
    first, steps, actions = played("OnHost", ("clip_reward",), vectorization="async")
    check(first, steps, actions, [("clip_reward", 1)], False)


@pytest.mark.parametrize("kind", ["image", "grey", "number", "dict", "discrete"])
@pytest.mark.parametrize("form", ["InJax", "OnHost"])
def test_observations_are_flat(form, kind):
    def run(*wrappers):
        env = envs.make(f"erratic_envs:{form}", {"kind": kind}, (), ENVS, wrappers=wrappers)
        actions = np.random.default_rng(0).integers(2, size=(30, ENVS), dtype=np.int32)
        return env, *play(env, actions, 0)

    env, first, steps = run()
    flat, flat_first, flat_steps = run("flatten")
    rows = lambda x, lead: x.reshape(*x.shape[:lead], -1)  # noqa: E731
    np.testing.assert_array_equal(flat_first, rows(first, 1))
    np.testing.assert_array_equal(flat_steps.obs, rows(steps.obs, 2))
    np.testing.assert_array_equal(flat_steps.final_obs, rows(steps.final_obs, 2))
    dtype = getattr(flat.spec.observation, "dtype", "float32")
    assert flat_steps.obs.dtype == steps.obs.dtype == dtype
    assert flat.spec.obs_shape == flat_first.shape[1:]
    scales = [getattr(one.spec.observation, "scale", 1.0) for one in (flat, env)]
    assert scales[0] == scales[1]

    # Before stacks and after them.
    _, _, stacked = run("frame_stack=2")
    _, _, then_flat = run("frame_stack=2", "flatten")
    _, _, of_flat = run("flatten", "frame_stack=2")
    np.testing.assert_array_equal(then_flat.obs, rows(stacked.obs, 2))
    newest = flat_steps.obs.shape[-1]
    np.testing.assert_array_equal(of_flat.final_obs[..., newest:], flat_steps.final_obs)


@pytest.mark.parametrize("form", ["InJax", "OnHost"])
def test_stacks_stand_anywhere(form):
    """Around repeats they have every second observation, within them every one."""
    _, outer, _ = played(form, ("action_repeat=2",), frame_stack=2)
    _, named, _ = played(form, ("action_repeat=2", "frame_stack=2"))
    _, inner, _ = played(form, ("frame_stack=2", "action_repeat=2"))
    jax.tree.map(np.testing.assert_array_equal, outer, named)
    apart = [x.final_obs[..., 7] - x.final_obs[..., 2] for x in (outer, inner)]
    assert set(np.unique(apart[0])) == {1, 2}  # 1 where the episode ends within
    assert set(np.unique(apart[1])) == {1}
    np.testing.assert_array_equal(outer.final_obs[..., 5:], inner.final_obs[..., 5:])


@pytest.mark.slow
@pytest.mark.parametrize("form", OWN)
def test_ones_own_are_found_as_paths_and_as_objects(form):
    _, plain, _ = played(form, ())
    own = getattr(trails, OWN[form].split(":")[1])
    forms = {
        2: [(OWN[form],), (own,), (f"{OWN[form]}=2",), ((own, 2),), (lambda env: own(env),)],
        8: [(f"{OWN[form]}={{'of': 8}}",), ((own, {"of": 8}),), (own, (own, 4)), ((OWN[form], 8),)],
    }
    for of, every in forms.items():
        for wrappers in every:
            _, steps, _ = played(form, Config(wrappers=wrappers).validate().wrappers)
            np.testing.assert_allclose(steps.reward, plain.reward / of, rtol=1e-6)
            np.testing.assert_array_equal(steps.final_obs, plain.final_obs)
    assert envs.make(f"trails:{form}", wrappers=(OWN[form],)) is not None
    _, steps, _ = played(form, (OWN[form], "time_limit=3"))
    assert steps.truncated.sum() > plain.truncated.sum()


def test_gymnasiums_wrappers_change_spaces_and_policies():
    """Policies take what the wrapped environment gives."""
    names = ("gymnasium.wrappers:TimeAwareObservation", "flatten", "frame_stack=2")
    config = Config(env="gymnasium/CartPole-v1", wrappers=names, hidden_sizes=(8,))
    env = rollout.make_env(config)
    assert env.own_spec.obs_shape == (5,)
    assert env.spec.obs_shape == (10,)
    own = gymnasium.wrappers.TimeAwareObservation(gymnasium.make("CartPole-v1"))
    obs, _ = own.reset(seed=3)
    with env.open() as running:
        first, _ = running.reset([3])
    np.testing.assert_allclose(first[0], np.tile(obs, 2), rtol=1e-6)
    encode, axes = rljax.envs.host_envs.given(env)
    np.testing.assert_array_equal(encode([obs, obs]), first[0])
    assert axes == 2


WRAPPERS = ("sticky_actions=0.25", "action_repeat=2", "clip_reward", "time_limit=3")


@pytest.mark.slow
@pytest.mark.parametrize("form", OWN)
def test_a_run_records_them_and_reports_true_returns(form, tmp_path):
    """Resume and evaluation find them again; training sees clipped rewards."""
    more = dict(env=f"trails:{form}", wrappers=[OWN[form], *WRAPPERS], total_timesteps=480)
    more.update(num_seeds=1, eval_every=240)
    straight, halved = tmp_path / "straight", tmp_path / "halved"
    run = small_runs.train(straight, **more)
    recorded = json.loads((straight / "config.json").read_text())["config"]["wrappers"]
    assert recorded == [OWN[form], *WRAPPERS]
    assert rljax.load(straight).config.wrappers == (OWN[form], *WRAPPERS)
    assert run.metrics["episodic_length"].max() <= 3
    found = rljax.load(straight).evaluate(episodes=3)
    assert found["mean_length"] <= 3 if "mean_length" in found else found["mean"] < 10

    other = getattr(trails, OWN[form].split(":")[1])
    given = (other, *WRAPPERS[:2], ("clip_reward", 1e9), WRAPPERS[3])
    unclipped = small_runs.train(**{**more, "wrappers": given})
    first = [one.metrics["episodic_return"].iloc[0] for one in (run, unclipped)]
    np.testing.assert_allclose(*first, rtol=1e-5)  # before the first update
    assert run.metrics["value_loss"].iloc[0] < unclipped.metrics["value_loss"].iloc[0]

    with pytest.MonkeyPatch.context() as patch:
        small_runs.stop_at_update(patch, 16)
        assert small_runs.train(halved, **more).status == "interrupted"
    with pytest.raises(ValueError, match="may be raised: the run has wrappers = "):
        rljax.resume(halved, wrappers=WRAPPERS)
    assert rljax.resume(halved, wrappers=(other, *WRAPPERS)).status == "completed"
    if form == "InJax":
        assert small_runs.results(halved) == small_runs.results(straight)


@pytest.mark.slow
def test_what_has_no_name_is_given_again_on_resume(tmp_path):
    def mine(env):
        return trails.halved(env)

    told = dict(env="trails:InJax", total_timesteps=320, num_seeds=1, wrappers=(mine, "flatten"))
    small_runs.train(tmp_path / "run", **told, on_log=lambda row: "stop")
    with pytest.raises(
        ValueError, match=r"wrapper '<function .* has no path .* give the object again"
    ):
        rljax.resume(tmp_path / "run", quiet=True)
    run = rljax.resume(tmp_path / "run", wrappers=(mine, "flatten"), quiet=True)
    assert run.status == "completed"


@pytest.mark.slow
@pytest.mark.parametrize("form", OWN)
def test_a3c_trains(form):
    config = Config(env=f"trails:{form}", wrappers=[*WRAPPERS], num_envs=1, hidden_sizes=(8,))
    config = dataclasses.replace(config, total_timesteps=160)
    state, metrics = a3c.train(
        config, WorkerConfig(num_workers=2, lockstep=True), jax.random.key(0)
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.learner.params))
    assert np.nanmax(metrics.episodic_length) <= 3


def test_flags_and_axes():
    argv = ["--wrappers", "time_limit=500", "trails:halved={'of': 3}", "sticky_actions=.25"]
    (config,) = parse((Config(),), "", argv)
    assert config.wrappers == tuple(argv[1:])
    name, axis = parse_axis("wrappers=none,flatten+own:it={'a': [1,2], 'b': '+'},time_limit=5", 9)
    expected = [(), ("flatten", "own:it={'a': [1,2], 'b': '+'}"), ("time_limit=5",)]
    assert (name, axis) == ("wrappers", expected)
    values = (("time_limit=5", "flatten"), (trails.halved, (trails.halved, "3")), (("a", 2),))
    assert list(map(points.label, values)) == ["time_limit=5+flatten", "halved+halved=3", "a=2"]


@pytest.mark.slow
def test_axes_of_a_sweep(tmp_path, undrawn):
    base = Config(env="trails:InJax", total_timesteps=160, hidden_sizes=(8,))
    axes = {"wrappers": [(), (("time_limit", 2),), ((trails.halved, 4), "flatten")]}
    table = sweep.run(base, axes, seeds=[0], quiet=True, run_dir=tmp_path / "sweep")
    labels = {"none", "time_limit=2", "halved=4+flatten"}
    assert set(table["wrappers"]) == labels
    assert table.groupby("wrappers")["eval_return"].max().nunique() == 3
    recorded = directory.read_record(tmp_path / "sweep")["points"]
    names = [[], ["time_limit=2"], ["trails:halved=4", "flatten"]]
    assert [one["wrappers"] for one in recorded] == names


def test_without_wrappers_nothing_is_around():
    plain = envs.make("trails:InJax")
    found = plain.mdp
    assert found.reset.__module__ == found.step.__module__ == jax_envs.__name__
    state, _ = found.reset(jax.random.key(0))
    assert isinstance(state, trails.State)


LAMBDAS = {
    "none": lambda env: None,
    "fails": lambda env: 1 / 0,
    "state": lambda env: env._replace(reset=lambda key, index=0: (0, env.reset(key, index)[1])),
    "step": lambda env: env._replace(step=lambda key, state, action: 3),
}


@pytest.mark.parametrize(
    ("form", "wrapper", "message"),
    [
        ("InJax", "stiky_actions=0.25", "unknown wrapper 'stiky_actions': did you mean sticky_"),
        ("InJax", "nothing", "unknown wrapper 'nothing': known are mask_velocity, flatten, frame_"),
        ("InJax", "sticky_actions", "sticky_actions: needs a value, as sticky_actions=0.25: a n"),
        ("InJax", "sticky_actions=1", "sticky_actions=1: must be a number in [0, 1)"),
        ("InJax", "sticky_actions=-0.5", "must be a number in [0, 1)"),
        ("InJax", "sticky_actions=True", "must be a number in [0, 1)"),
        ("InJax", "time_limit=0", "time_limit=0: must be a whole number from 1"),
        ("InJax", "time_limit=2.0", "must be a whole number from 1"),
        ("InJax", ("time_limit", True), "time_limit=True: must be a whole number from 1"),
        ("InJax", "action_repeat=x", "action_repeat=x: must be a whole number from 1"),
        ("InJax", "frame_stack=", "frame_stack=: must be a whole number from 1"),
        ("InJax", "time_limit=[1", "'[1' is no list, tuple or dict"),
        ("InJax", "clip_reward=0", "clip_reward=0: must be a number above 0"),
        ("InJax", "flatten=1", "flatten=1: flatten takes no value"),
        ("InJax", ("time_limit", np.inf), "wrappers: 'time_limit' = inf: must be a number, a bool"),
        ("InJax", ("time_limit", np.ones(2)), "must be a number, a bool"),
        ("InJax", 3, "wrappers = (3,): must be a tuple of names, of functions, or of pairs of"),
        ("InJax", "trails:NOTHING", "trails:NOTHING: must be a function or a class"),
        ("InJax", "trails:absent", "'trails:absent': trails has no attribute 'absent'"),
        ("InJax", "absent:it=1", "'absent:it': No module named 'absent'"),
        ("InJax", "trails:halved={'by': 2}", "does not take an environment and {'by': 2} (got an"),
        ("InJax", "trails:OnHost", "OnHost: needs a value (too many positional arguments)"),
        ("InJax", "trails:Halved", "trails:Halved wraps gymnasium's environments, and 'trails:InJ"),
        ("InJax", "builtins:str", "builtins:str: must give an MDP, as it is given, not str"),
        ("InJax", LAMBDAS["none"], "<lambda>: must give an MDP, as it is given, not NoneType"),
        ("InJax", LAMBDAS["fails"], "<lambda>: ZeroDivisionError: division by zero"),
        ("InJax", LAMBDAS["step"], "<lambda>: its reset must return (state, obs), and its step"),
        ("InJax", LAMBDAS["state"], "<lambda>: its step fails: AttributeError"),
        ("OnHost", LAMBDAS["none"], "<lambda>: must give a gymnasium.Env, not NoneType"),
        ("OnHost", LAMBDAS["fails"], "<lambda>: ZeroDivisionError: division by zero"),
        ("OnHost", "gymnasium.wrappers:TimeLimit", "TimeLimit: needs a value (missing a required"),
        ("OnHost", "gymnasium.wrappers:TimeLimit=x", "gymnasium.wrappers:TimeLimit=x: "),
    ],
)
def test_bad_input(form, wrapper, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)) as caught:
        rollout.make_env(Config(env=f"trails:{form}", wrappers=(wrapper,)).validate())
    assert "\n" not in str(caught.value)
    assert "wrapper" in str(caught.value)


def test_what_does_not_fit_is_refused():
    for name in ("time_limit=5", "action_repeat=2"):
        with pytest.raises(
            ValueError, match=f"{name[:-2]} is not for '.*': it resets itself in st"
        ):
            envs.make("trails:ResettingInJax", wrappers=(name,))
    with pytest.raises(ValueError, match=r"trails:Halved wraps .* and must come before flatten"):
        envs.make("trails:OnHost", wrappers=("flatten", "trails:Halved"))
    with pytest.raises(ValueError, match=r"not for 'CartPole-v1' with observations of shape \[8\]"):
        envs.make("CartPole-v1", wrappers=("frame_stack=2", "mask_velocity"))
