"""Environments that Python steps: gymnasium's."""

import itertools
import multiprocessing
import os
import re
import signal
import sys
import time
import warnings

import flax.linen as nn
import gymnasium
import jax
import numpy as np
import pytest
import tiny
from generated_envs import ACTIONS, OBSERVATIONS
from gymnasium import spaces
from host_probes import (
    Answering,
    BareReset,
    Leaving,
    LeavingWhenClosed,
    Masked,
    MaskedTooLate,
    ResetWithoutInfo,
    RewardByAction,
    Sampling,
    Single,
    Sized,
    Walk,
    WithoutSpaces,
)
from hypothesis import example, given, settings

from rljax import a2c, envs, evaluation, presets, rollout
from rljax.config import Config
from rljax.envs import host_envs, known
from rljax.envs.host_envs import HostEnv
from rljax.envs.spaces import Box, Discrete
from rljax.utils import forkserver


@pytest.mark.parametrize("env", ["gymnasium/CartPole-v1", "host_probes:Walk", Walk, lambda: Walk()])
def test_gymnasiums_environments_are_found(env):
    made = envs.make(env)
    assert isinstance(made, HostEnv)
    assert made.spec.action_space == Discrete(2)


def test_bare_ids_are_gymnaxs_where_it_has_them():
    assert isinstance(envs.make("CartPole-v1"), envs.Env)
    gymnasium.register("OnlyHere-v0", entry_point="host_probes:Walk")
    try:
        assert isinstance(envs.make("OnlyHere-v0"), HostEnv)
        with pytest.raises(ValueError, match="unknown environment 'OnlyHere-v0'"):
            envs.make("gymnax/OnlyHere-v0")
    finally:
        del gymnasium.registry["OnlyHere-v0"]


def test_spaces_become_a_spec():
    spec = envs.make("gymnasium/Pendulum-v1").spec
    assert spec.obs_shape == (3,)
    assert spec.action_space == Box((1,), (-2.0,), (2.0,))


def test_keyword_arguments_reach_the_environment():
    spec = envs.make("gymnasium/CartPole-v1", (("sutton_barto_reward", True),)).spec
    assert spec.name == "gymnasium/CartPole-v1"
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        envs.make("gymnasium/CartPole-v1", (("colour", 3),))


class OtherActions(RewardByAction):
    action_space = gymnasium.spaces.Dict({"a": gymnasium.spaces.Discrete(2)})


class OtherObservations(RewardByAction):
    observation_space = gymnasium.spaces.Text(3)


@pytest.mark.parametrize(
    ("env", "params", "error", "message"),
    [
        ("gymnasium/CartPol-v1", (), ValueError, "unknown environment 'CartPol-v1': did you mean"),
        ("LunarLandr-v3", (), ValueError, "did you mean LunarLander-v3"),
        ("gymnasium/no_module:Env-v0", (), ValueError, "No module named 'no_module'"),
        (Walk(), (), TypeError, "give its class or a function, to make several"),
        (Walk, (("x", 1),), ValueError, "gymnasium's environments have none"),
        (WithoutSpaces, (), ValueError, "it has no observation_space .AttributeError"),
        (BareReset, (), ValueError, r"reset must return \(observation, info\), not array"),
        (ResetWithoutInfo, (), ValueError, "reset must return a dict as info, not None"),
        (Leaving, (), ValueError, "SystemExit: there is no licence"),
        (OtherObservations, (), ValueError, "unsupported observation space Text"),
        (OtherActions, (), ValueError, "unsupported action space Dict"),
        ("host_probes:differing", (), forkserver.RefusedError, "environment 0: its spaces are"),
    ],
)
def test_what_is_refused(env, params, error, message):
    with pytest.raises(error, match=message) as caught:
        envs.make(env, (), params, num_envs=3).open()
    assert "\n" not in str(caught.value)


def test_what_only_a_process_finds_out_is_refused_there():
    with pytest.raises(forkserver.RefusedError, match="environment 0: ValueError: there is no sim"):
        envs.make("host_probes:NotInWorkers", num_envs=2, vectorization="async").open()
    assert not multiprocessing.active_children()


def test_a_process_that_dies_as_it_is_made_is_named():
    with pytest.raises(
        forkserver.RefusedError, match=r"environments? \d.*: \w+ process exited with s"
    ):
        envs.make("host_probes:LeavingInWorkers", num_envs=2, vectorization="async").open()
    assert not multiprocessing.active_children()


def test_an_environment_is_described_once_and_not_while_it_is_open(monkeypatch):
    monkeypatch.setattr(Single, "made", 0)
    for _ in range(2):
        with envs.make("host_probes:Single").open() as running:
            assert envs.make("host_probes:Single").spec == running.spec
    assert (Single.made, Single.alive) == (3, 0)


def test_one_that_has_become_another_is_described_anew():
    size = 1
    env = lambda: Sampling(gymnasium.spaces.Box(0, 1, (size,)), gymnasium.spaces.Discrete(2))  # noqa: E731
    assert envs.make(env).spec.obs_shape == (1,)
    size = 2
    assert envs.make(env).spec.obs_shape == (2,)


def test_a_name_that_stands_for_another_is_noticed_and_described_anew(monkeypatch):
    path = "host_probes:Sized"
    assert envs.make(path).spec.action_space == Discrete(2)
    monkeypatch.setattr(Sized, "action_space", spaces.Discrete(5))
    with pytest.raises(forkserver.RefusedError, match="its spaces are"):
        envs.make(path).open()
    assert envs.make(path).spec.action_space == Discrete(5)
    known.forget()


def test_a_missing_package_is_named(monkeypatch):
    spec = gymnasium.spec("LunarLander-v3")
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    assert spec.entry_point.startswith("gymnasium.envs.box2d")
    with pytest.raises(ValueError, match=r"pip install 'rljax\[box2d\]'") as caught:
        envs.make("gymnasium/LunarLander-v3")
    assert "\n" not in str(caught.value)


def test_an_id_that_only_this_process_knows_goes_to_others():
    gymnasium.register("OnlyHere-v0", entry_point=Walk)
    try:
        with envs.make("OnlyHere-v0", num_envs=2, vectorization="async").open() as running:
            running.reset([0, 1])
            assert running.step(np.zeros(2, np.int32)).obs.tolist() == [[1], [1]]
    finally:
        del gymnasium.registry["OnlyHere-v0"]


def test_importing_a_module_registers(tmp_path, monkeypatch):
    module = tmp_path / "registers.py"
    module.write_text(
        "import gymnasium\ngymnasium.register('Registered-v0', entry_point='host_probes:Walk')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert envs.make("gymnasium/registers:Registered-v0").spec.obs_shape == (1,)
    finally:
        gymnasium.registry.pop("Registered-v0", None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("raise OSError('no driver\\nfound')", "'broken:Env': OSError: no driver found"),
        ("import sys; sys.exit(3)", "'broken:Env': SystemExit: 3"),
    ],
)
def test_a_module_that_cannot_be_imported(tmp_path, monkeypatch, line, message):
    (tmp_path / "broken.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        envs.make("broken:Env")
    assert "\n" not in str(caught.value)


def test_environments_in_jax_take_no_vectorization():
    with pytest.raises(ValueError, match=r"'async': 'CartPole-v1' is written in JAX"):
        envs.make("CartPole-v1", vectorization="async")


def test_successors_are_those_from_before_the_reset():
    with envs.make(Walk, num_envs=2).open() as running:
        obs, mask = running.reset([0, 1])
        steps = [running.step(np.zeros(2, np.int32)) for _ in range(4)]
    assert mask is None
    assert obs.dtype == np.float32
    assert obs.tolist() == [[0], [0]]
    assert [s.final_obs[0].tolist() for s in steps] == [[1], [2], [3], [1]]
    assert [s.obs[1].tolist() for s in steps] == [[1], [2], [0], [1]]
    assert [s.truncated.tolist() for s in steps] == [[i == 2] * 2 for i in range(4)]
    assert not any(s.terminated.any() for s in steps)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_successors_are_kept_from_an_environment_that_uses_its_array_again(vectorization):
    with envs.make(
        "host_probes:Reusing", num_envs=2, vectorization=vectorization
    ).open() as running:
        running.reset([0, 1])
        seen = [running.step(np.zeros(2, np.int32)) for _ in range(4)]
    assert [s.final_obs[0].tolist() for s in seen] == [[1], [2], [3], [1]]
    assert [s.obs[1].tolist() for s in seen] == [[1], [2], [0], [1]]


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_odd_habits_are_borne(vectorization):
    made = envs.make("host_probes:Odd", num_envs=2, vectorization=vectorization)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with made.open() as running:
            running.reset([0, 1])
            for _ in range(3):
                step = running.step(np.full((2, 2), 0.5, np.float32))
    assert step.obs.tolist() == [[0.25, 0.25]] * 2
    assert step.reward.tolist() == [1.0, 1.0]
    assert not multiprocessing.active_children()


# What environments are given


@pytest.mark.parametrize(
    ("space", "action", "own"),
    [
        (spaces.Discrete(3, start=4), np.int32(1), 5),
        (spaces.MultiDiscrete([2, 3], start=[1, -1]), np.int32([1, 0]), [2, -1]),
        (spaces.MultiDiscrete([[2], [3]]), np.int32([[1], [2]]), [[1], [2]]),
        (spaces.MultiBinary(3), np.int32([1, 0, 1]), [1, 0, 1]),
        (spaces.Box(-1, 1, (2,)), np.float32([0.5, -1]), [0.5, -1]),
        (spaces.Box(-0.1, 0.1, (1,), np.float64), np.float32([0.1]), [0.1]),
        (spaces.Box(0, 9, (2,), np.int16), np.float32([3.6, 9]), [4, 9]),
    ],
    ids=str,
)
def test_actions_become_those_of_the_declared_space(space, action, own):
    env = envs.make(lambda: Sampling(spaces.Discrete(2), space))
    found = env.decode(action)
    assert space.contains(found)
    np.testing.assert_array_equal(found, own)


@pytest.mark.parametrize(
    "name",
    [
        *("CartPole-v1", "Acrobot-v1", "Pendulum-v1"),
        *("LunarLander-v3", "LunarLanderContinuous-v3", "BipedalWalker-v3"),
        *("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Swimmer-v5", "Ant-v5"),
    ],
)
def test_presets_fit_their_environments(name):
    if name.startswith(("Lunar", "Bipedal")):
        pytest.importorskip("Box2D")
    if name.endswith("v5"):
        pytest.importorskip("mujoco")
    config = presets.preset("a2c", f"gymnasium/{name}")
    assert config.validate().env == f"gymnasium/{name}"
    state = jax.eval_shape(a2c.init, config, jax.random.key(0))
    head = state.learner.params["params"]["actor_head"]["bias"]
    actions = gymnasium.make(name).action_space
    assert head.shape == (actions.shape or (actions.n,))


# Masks


@pytest.fixture(scope="module")
def masked():
    """(config, state, metrics) of training on an environment that refuses what is not valid."""
    config = Config(
        env="host_probes:Masked", num_envs=4, num_steps=8, total_timesteps=640, hidden_sizes=(4,)
    )
    return config, *a2c.train(config, jax.random.key(0))


def test_masked_actions_are_not_taken_and_carry_no_entropy(masked):
    _, _, metrics = masked
    assert np.all(metrics.episodic_return == 4)
    expected = 0.25 * np.log(2) + 0.75 * np.log(2.6)
    assert metrics.losses["entropy"][0] == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("greedy", [True, False])
def test_masked_actions_are_not_taken_in_evaluations(masked, greedy):
    config, state, _ = masked
    learners = jax.tree.map(lambda x: np.asarray(x)[None], state.learner)
    played = evaluation.evaluate(
        config, learners, jax.random.split(jax.random.key(1), 1), 5, greedy
    )
    assert played.returns.tolist() == [[4.0] * 5]


def test_a_plain_policy_takes_a_mask(masked):
    config, state, _ = masked
    policy, env = evaluation.policy(config, state.learner), Masked()
    obs, info = env.reset()
    for t in range(4):
        action = policy(obs, jax.random.key(t), info["action_mask"])
        obs, _, terminated, _, info = env.step(action)
    assert terminated


def test_a_mask_that_comes_too_late_is_an_error():
    with envs.make(MaskedTooLate).open() as running:
        running.reset([0])
        with pytest.raises(forkserver.EnvError, match="had none at the first reset"):
            running.step(np.zeros(1, np.int32))


def test_a_mask_that_gymnaxs_form_cannot_give_first():
    with pytest.raises(TypeError, match=r"by a method action_mask\(state, params\)"):
        envs.make("probes:MaskedInInfo")


def test_masked_actions_of_gymnaxs_form_are_never_taken():
    config = Config(env="probes:Counter", num_envs=8, num_steps=50, hidden_sizes=(4,))
    env, network = rollout.make_env_and_network(config)
    learning = tiny.init_learner(config, network, env.spec, jax.random.key(0))
    actor = tiny.init_actor(env, network, config.num_envs, jax.random.key(1))
    _, batch = tiny.collect(config, env, network, learning, actor)
    taken = np.take_along_axis(batch.mask, batch.action[..., None], axis=-1)
    assert taken.all()
    assert not batch.mask.all()


def test_a_mask_that_allows_nothing_is_noticed_in_jax():
    config = Config(
        env="probes:MaskedOut", num_envs=2, num_steps=2, total_timesteps=8, hidden_sizes=(4,)
    )
    _, metrics = tiny.train(config, jax.random.key(0))
    assert metrics.diverged_at.tolist() == [1, 1]


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("at_end", ["none", "missing", "odd"])
def test_the_mask_is_not_looked_at_where_an_episode_ends(at_end, vectorization):
    kwargs = (("at_end", at_end),)
    with envs.make("host_probes:NothingLeft", kwargs, (), 2, vectorization).open() as running:
        _, mask = running.reset([0, 1])
        assert mask.tolist() == [[False, True]] * 2
        for t in range(1, 8):
            step = running.step(mask[:, 1].astype(np.int32))
            mask = step.mask
            assert step.truncated.tolist() == [t % 3 == 0] * 2
            assert mask.tolist() == [[t % 3 != 0, t % 3 == 0]] * 2  # of the reset, after an end


class LeavingAChild(RewardByAction):
    """Starts a process and does not end it."""

    def __init__(self):
        self.child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
        self.child.start()


@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning", "ignore:.*fork:DeprecationWarning")
def test_a_process_of_an_environment_that_was_only_looked_at_is_ended():
    """Else it would keep the program from its end."""
    before = set(multiprocessing.active_children())
    envs.make(LeavingAChild, vectorization="async")
    assert set(multiprocessing.active_children()) == before


# Any spaces


@pytest.mark.slow
@example(
    observations=spaces.Dict(
        {
            "image": spaces.Box(0, 255, (2, 2), np.uint8),
            "two": spaces.Tuple((spaces.Discrete(2), spaces.MultiBinary(2))),
        }
    ),
    actions=spaces.Box(np.array([-np.inf, -1, 0]), np.array([1, np.inf, 2]), dtype=np.float64),
)
@example(observations=spaces.MultiDiscrete([2, 3]), actions=spaces.MultiDiscrete([1, 4, 2]))
@settings(max_examples=1, deadline=None, derandomize=True, database=None)
@given(observations=OBSERVATIONS, actions=ACTIONS)
def test_random_spaces_go_through_an_update(observations, actions):
    config = Config(
        env=lambda: Sampling(observations, actions),
        total_timesteps=8,
        num_envs=2,
        num_steps=4,
        hidden_sizes=(3,),
        network="mlp",
    )
    state, metrics = a2c.train(config, jax.random.key(0))
    assert state.learner.updates == 1
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.learner.params))
    assert metrics.episodes.tolist() == [2.0]
    assert metrics.diverged_at.tolist() == [0]


class OwnTorso(nn.Module):
    """Takes the pieces of `Counter`'s Dict apart."""

    @nn.compact
    def __call__(self, obs):
        assert obs["mark"].shape[1:] == (1,)
        assert obs["odd"].shape[1:] == (2,)
        return nn.Dense(3)(obs["mark"]) + nn.Dense(3)(obs["odd"])


@pytest.mark.parametrize("module", ["probes", "host_probes"])
def test_ones_own_torso_is_given_the_pieces(module):
    config = Config(
        env=f"{module}:Counter", network=OwnTorso, num_envs=2, num_steps=4, total_timesteps=16
    )
    train = tiny.train if module == "probes" else a2c.train
    state, _ = train(config, jax.random.key(0))
    torso = state.learner.params["params"]["actor_torso"]
    assert torso["Dense_1"]["kernel"].shape == (2, 3)


# Failures


def steps(running, number):
    for _ in range(number):
        running.step(np.zeros(running.num_envs, np.int32))


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("OtherShape", r"environment 0 of .* at step 3: .* shape \(2,\), not \(1,\)"),
        (
            "TurningNaN",
            r"environment 0 of .* at step 3: observation is not .* float32: \[nan\]",
        ),
        ("InfiniteReward", r"environment 0 of .* at step 1: reward is not finite in float32: inf"),
        ("RaisingAtThree", r"(?s)at step 3:\nTraceback.*RuntimeError: .* out of fuel"),
        ("HugeAtReset", r"(?s)environment 0 of .* at step 3:.*OverflowError"),
        ("RaisingOddly", r"(?s)at step 1:\nTraceback.*LocalError: out of"),
    ],
)
def test_what_goes_wrong_is_told_with_environment_and_step(env, message, vectorization):
    made = envs.make(f"host_probes:{env}", num_envs=2, vectorization=vectorization)
    with made.open() as running:
        running.reset([0, 1])
        with pytest.raises(forkserver.EnvError, match=message) as caught:
            steps(running, 4)
    assert str(caught.value).count("Traceback") <= 1
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("reward None", "reward is None: must be a number"),
        ("reward text", "reward is '1.0': must be a number"),
        ("two rewards", r"reward is array\(\[1., 1.\]\): must be a number"),
        ("no reward", r"reward is \[\]: must be a number"),
        ("complex reward", "reward is 1j: must be a number"),
        ("reward NaN", "reward is not finite in float32: nan"),
        ("reward 1e39", r"reward is not finite in float32: 1e\+39"),
        ("reward 10**400", r"reward is not finite in float32: 1000.*\.\.\..*000"),
        ("flag None", "terminated is None: must be True or False"),
        ("flag text", "truncated is 'False': must be True or False"),
        ("two flags", r"terminated is array\(\[False, False\]\): must be True or False"),
        ("flag 2", "terminated is 2: must be True or False"),
        ("info None", "step must return a dict as info, not None"),
        ("four values", r"step must return \(obs.*, reward, term.*, trunc.*, info\), not 4 values"),
        ("six values", "step must return .*, not 6 values"),
        ("None", "step must return .*, not None"),
        ("obs None", r"observation has shape \(\), not \(1,\)"),
        ("obs text", "observation is of <U3: must be of numbers"),
        ("complex obs", "observation is of complex64: must be of numbers"),
        ("obs 1e39", r"observation is not finite in float32: \[inf\]"),
        ("exit", r"(?s)\nTraceback.*SystemExit: 3"),
        ("nothing said", r"(?s)\nTraceback.*AssertionError"),
    ],
)
def test_wrong_answers_are_told(what, message):
    """In a line, but for exceptions; in one process, and of the second environment alone."""
    with warnings.catch_warnings(), envs.make(answering(what, 2), num_envs=2).open() as running:
        warnings.simplefilter("error")
        running.reset([0, 1])
        steps(running, 1)
        with pytest.raises(forkserver.EnvError, match=message) as caught:
            steps(running, 1)
    assert re.match(r"environment 1 of .* at step 2:[ \n]", str(caught.value))
    assert message.startswith("(?s)") or "\n" not in str(caught.value)


@pytest.mark.parametrize("what", ["Decimal", "0-d", "1-d", "bool", "uint8"])
def test_rewards_of_many_kinds_are_taken(what):
    with envs.make(answering(f"reward {what}", 1)).open() as running:
        running.reset([0])
        rewards = [running.step(np.zeros(1, np.int32)).reward for _ in range(3)]
    assert {reward.dtype for reward in rewards} == {np.dtype("float32")}
    assert np.concatenate(rewards).tolist() == [1, 1, 1]


@pytest.mark.parametrize("what", ["flag NumPy", "flag 0"])
def test_flags_of_many_kinds_are_taken(what):
    with envs.make(answering(what, 1)).open() as running:
        running.reset([0])
        assert running.step(np.zeros(1, np.int32)).terminated.tolist() == [False]


def answering(what, number):
    """What makes environments of which that one, the first being 1, answers wrongly."""
    made = itertools.count()  # the first of all is looked at and closed
    return lambda: Answering(what if next(made) == number else None)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("exit", r"(?s)environment 0 of .* at step 2:\nTraceback.*SystemExit: 3"),
        ("interrupt", r"(?s)environment 0 of .* at step 2:\nTraceback.*KeyboardInterrupt"),
        ("dead", "environment 0 of .* at step 2: its process exited with status 3"),
        ("aborted", "environment 0 of .* at step 2: its process was killed by SIGABRT"),
        ("reward 1e39", "environment 0 of .* at step 2: reward is not finite in float32"),
    ],
)
def test_exits_in_processes_are_told(what, message):
    made = envs.make("host_probes:Answering", (("what", what),), (), 1, "async")
    with made.open() as running:
        running.reset([0])
        with pytest.raises(forkserver.EnvError, match=message):
            steps(running, 2)
    assert not multiprocessing.active_children()


def test_an_interrupt_is_the_environments_unless_a_signal_came():
    class Interrupted(Walk):
        by_signal = False

        def step(self, action):
            if self.by_signal:
                os.kill(os.getpid(), signal.SIGINT)
            raise KeyboardInterrupt

    def handler(number, frame):
        raise KeyboardInterrupt

    with envs.make(Interrupted).open() as running:
        running.reset([0])
        for by_signal, own, error in [
            (True, handler, KeyboardInterrupt),
            (False, handler, forkserver.EnvError),
            (False, signal.SIG_IGN, forkserver.EnvError),
            (True, signal.default_int_handler, KeyboardInterrupt),
        ]:
            Interrupted.by_signal = by_signal
            before = signal.signal(signal.SIGINT, own)
            try:
                with pytest.raises(error):
                    steps(running, 1)
            finally:
                signal.signal(signal.SIGINT, before)


def test_one_that_leaves_when_closed_is_a_warning():
    with pytest.warns(UserWarning, match="cannot be closed: SystemExit: 3"):
        envs.make(LeavingWhenClosed).open().close()


@pytest.mark.parametrize(
    ("processes", "names"),
    [(3, ["environment 0", "environment 1", "environment 2"]), (2, ["environments 0 to 1", "en"])],
)
def test_a_process_that_is_killed_is_noticed_at_once(processes, names):
    how = dict(vectorization="async", env_processes=processes)
    made = envs.make("host_probes:Slow", num_envs=3, **how)
    for i in range(processes):
        with made.open() as running:
            running.reset([0, 1, 2])
            running.step(np.zeros(3, np.int32))
            os.kill(running._envs.processes[i].pid, signal.SIGKILL)
            begun = time.monotonic()
            found = rf"{names[i]}.* of .* at step 2: \w+ process was killed by SIGKILL"
            with pytest.raises(forkserver.EnvError, match=found):
                steps(running, 3)
        assert time.monotonic() - begun < 5
        assert not multiprocessing.active_children()


@pytest.mark.parametrize("processes", [1, 2, 5, 9])
def test_processes_share_environments_evenly_and_change_nothing(processes):
    """Masks, true successors, scores and logged numbers of games of different lengths."""
    settings = dict(num_envs=5, log_info=("steps",), env_kwargs=lambda index: {"length": 1 + index})
    answers = []
    for how in ({}, dict(vectorization="async", env_processes=processes)):
        with envs.make("host_probes:Game", **settings, **how).open() as running:
            answers.append([running.reset(range(5)), *some_steps(running, 9)])
            if how:
                sizes = [len(share) for share in running._envs.shares]
                assert len(sizes) == min(processes, sum(sizes))
                assert max(sizes) - min(sizes) <= 1
    jax.tree.map(np.testing.assert_array_equal, *answers)
    logged = np.array([step.info for step in answers[0][1:]])
    assert (logged > 0).sum(axis=0)[:, 0].tolist() == [4, 2, 1, 1, 0]


def some_steps(running, number):
    return [running.step(np.zeros(running.num_envs, np.int32)) for _ in range(number)]


def test_a_lost_life_is_terminated_and_its_game_goes_on():
    with envs.make("host_probes:Game", (("length", 2),)).open() as running:
        assert running.spec.has_over
        (obs, _), played = running.reset([0]), some_steps(running, 5)
    assert [step.terminated[0] for step in played] == [False, True, False, True, False]
    assert [step.over[0] for step in played] == [False, False, False, True, False]
    assert [step.score[0] for step in played] == [10] * 5
    assert [step.reward[0] for step in played] == [1] * 5
    assert obs.tolist() == [[2, 0]]
    assert [step.obs[0].tolist() for step in played] == [[2, 1], [1, 2], [1, 3], [2, 0], [2, 1]]
    assert played[1].final_obs[0].tolist() == [1, 2]
    assert played[3].final_obs[0].tolist() == [0, 4]
    assert [step.mask[0].tolist().index(True) for step in played] == [1, 0, 1, 0, 1]


def test_a_game_is_over_only_where_a_step_ends_an_episode():
    with envs.make("host_probes:OverTooEarly", (("length", 2),)).open() as running:
        running.reset([0])
        played = some_steps(running, 4)
    assert [step.over[0] for step in played] == [False, False, False, True]
    assert [step.obs[0].tolist() for step in played] == [[2, 1], [1, 2], [1, 3], [2, 0]]


def test_returns_are_of_whole_games_and_values_are_cut_at_lives():
    settings = dict(env="host_probes:Game", env_kwargs={"length": 3}, log_info=("steps",))
    settings |= dict(num_envs=2, num_steps=4, hidden_sizes=(4,), total_timesteps=96)
    state, metrics = a2c.train(Config(**settings), jax.random.key(0), log_interval=3)
    assert metrics.episodes.tolist() == [4, 4, 4, 4]
    assert metrics.episodic_return.tolist() == [60] * 4
    assert metrics.episodic_length.tolist() == [6] * 4
    assert metrics.info.tolist() == [[6]] * 4
    learners = jax.tree.map(lambda x: x[None], state.learner)
    found = evaluation.evaluate(Config(**settings), learners, jax.random.key(0)[None], 3, True)
    assert found.returns.tolist() == [[60] * 3]
    assert found.lengths.tolist() == [[6] * 3]
    cut = envs.make("host_probes:Game", (("length", 3),), wrappers=("time_limit=5",))
    with cut.open() as running:
        running.reset([0])
        played = some_steps(running, 5)
    assert [step.over[0] for step in played] == [False] * 4 + [True]
    assert [step.truncated[0] for step in played] == [False] * 4 + [True]


def test_an_error_in_a_process_names_its_environment():
    """The fourth of five, in the second process."""
    kwargs = lambda index: {"fails_at": 2 if index == 3 else None}  # noqa: E731
    made = envs.make("host_probes:Game", kwargs, (), 5, "async", env_processes=2)
    with made.open() as running:
        running.reset(range(5))
        with pytest.raises(forkserver.EnvError, match=r"environment 3 of .*Game at step 2:\n"):
            steps(running, 2)


def test_seeds_are_of_their_key_and_apart():
    first, again, other = (host_envs.seeds(jax.random.key(k), 100) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len({*first.tolist(), *other.tolist()}) == 200
    assert first.max() < 2**31


def test_a_loop_gives_a_time_major_batch():
    noise = np.arange(10, dtype=np.float32).reshape(5, 2)

    before = []

    def act(t, obs, mask, of_step_before):
        carry, reward, done = of_step_before
        before.append((carry, reward.tolist(), done.tolist()))
        return (noise[t], np.int32(noise[t])), carry + 1

    with envs.make(Walk, num_envs=2).open() as running:
        obs, mask = running.reset([0, 1])
        obs, mask, batch = rollout.loop(act, running.step, obs, mask, 5, first=7)
    assert mask is None
    assert batch.mask is None
    np.testing.assert_array_equal(batch.action, noise)
    assert batch.obs[:, 0, 0].tolist() == [0, 1, 2, 0, 1]
    assert batch.final_obs[:, 0, 0].tolist() == [1, 2, 3, 1, 2]
    assert batch.truncated[:, 1].tolist() == [False, False, True, False, False]
    assert batch.reward.shape == (5, 2)
    assert before[0] == (7, [0, 0], [False, False])
    done = batch.terminated | batch.truncated
    rewards = batch.reward.tolist()
    assert before[1:] == [*zip(range(8, 12), rewards[:-1], done[:-1].tolist())]
    assert obs[:, 0].tolist() == [2, 2]


@pytest.mark.parametrize("greedy", [True, False])
def test_evaluation_plays_whole_episodes(greedy):
    config = Config(env="host_probes:Walk", hidden_sizes=(4,))
    env, network = rollout.make_env_and_network(config)
    keys = jax.random.split(jax.random.key(0), 2)
    learners = tiny.init_learners(config, network, env.spec, keys)
    played = evaluation.evaluate(config, learners, keys, 4, greedy)
    assert played.returns.tolist() == [[3.0] * 4] * 2
    assert played.lengths.tolist() == [[3] * 4] * 2
    assert played.finished.all()
