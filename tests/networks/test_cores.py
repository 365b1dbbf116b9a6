"""Recurrent cores: what the update replays is what acting computed."""

import dataclasses
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rljax import Config, a2c, evaluation, learner, networks, rollout
from rljax.envs.interface import EnvSpec
from rljax.envs.spaces import Box, Discrete, MultiDiscrete, Numbers
from rljax.networks import cores
from rljax.networks.replay import replay
from rljax.types import Transition

CONFIG = Config(
    env="CartPole-v1",
    total_timesteps=640,
    num_envs=4,
    num_steps=16,
    hidden_sizes=(8,),
    core="lstm",
    core_size=6,
    core_inputs=("last_action", "last_reward"),
)
SPEC = EnvSpec("four numbers", Numbers((4,)), Discrete(2))
KINDS = {
    "lstm": dict(core="lstm"),
    "gru": dict(core="gru", core_inputs=()),
    "shared": dict(core="lstm", shared_torso=True, core_inputs=("last_reward",)),
}
SHAPE = CONFIG.num_steps, CONFIG.num_envs
REPLAY = jax.jit(partial(replay, rows=None), static_argnums=0)


@pytest.fixture(scope="module", params=KINDS)
def agent(request):
    """(config, network, parameters)."""
    config = dataclasses.replace(CONFIG, **KINDS[request.param])
    network = networks.make(config, SPEC)
    return config, network, tiny.init_learner(config, network, SPEC, jax.random.key(0)).params


def random_batch(ends, seed=0):
    """A rollout in which this share of the steps terminates, and as many are truncated."""
    rng = np.random.default_rng(seed)
    return Transition(
        obs=rng.normal(size=(*SHAPE, 4)).astype(np.float32),
        action=rng.integers(0, 2, SHAPE, np.int32),
        reward=rng.normal(size=SHAPE).astype(np.float32),
        terminated=rng.random(SHAPE) < ends,
        truncated=rng.random(SHAPE) < ends,
        final_obs=rng.normal(size=(*SHAPE, 4)).astype(np.float32),
    )


def random_carry(network, seed=1):
    rng = np.random.default_rng(seed)
    first = networks.initial_carry(network, CONFIG.num_envs)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), first)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def slow_cell(config, p, carry, x):
    """A step of a cell for one environment, from its equations, in float64."""
    x = x @ p["inputs"]["kernel"] + p["inputs"]["bias"]
    r = carry[-1] @ p["recurrent"]["kernel"] + p["recurrent"].get("bias", 0.0)
    if config.core == "lstm":
        i, f, g, o = np.split(x + r, 4)
        c = sigmoid(f) * carry[0] + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return (c, h), h
    (x_r, x_z, x_n), (r_r, r_z, r_n) = np.split(x, 3), np.split(r, 3)
    z = sigmoid(x_z + r_z)
    h = (1 - z) * np.tanh(x_n + sigmoid(x_r + r_r) * r_n) + z * carry[0]
    return (h,), h


def slow_replay(config, params, carry, batch, shift=0):
    """(logits [T, B, 2], values [T, B], values of the true successors [T, B]), environment by
    environment and step by step. `shift` is that of the reset, which must be 0."""
    p = jax.tree.map(np.float64, params["params"])
    towers = ("actor", "actor") if config.shared_torso else ("actor", "critic")
    done = batch.terminated | batch.truncated
    logits, values, successors = np.zeros((*SHAPE, 2)), np.zeros(SHAPE), np.zeros(SHAPE)

    def tower(name, index, obs, memory):
        torso = p[f"{name}_torso"]["Dense_0"]
        features = np.tanh(obs @ torso["kernel"] + torso["bias"])
        inputs = np.concatenate([features, *memory["extras"]])
        return slow_cell(config, p[f"{name}_core"], memory["cores"][index], inputs)

    def value_of(obs, memory):
        out = tower(towers[1], -1, obs, memory)[1]
        return (out @ p["critic_head"]["kernel"] + p["critic_head"]["bias"])[0]

    for b in range(SHAPE[1]):
        own = jax.tree.map(lambda x, b=b: np.float64(x[b]), carry)
        memory = {"cores": own.cores, "extras": [np.atleast_1d(x) for x in cores_extras(own)]}
        first = jax.tree.map(np.zeros_like, memory)
        for t in range(SHAPE[0]):
            if shift and done[t, b]:
                memory = first
            steps = [
                tower(name, i, np.float64(batch.obs[t, b]), memory)
                for i, name in enumerate(towers[: len(memory["cores"])])
            ]
            head = p["actor_head"]
            logits[t, b] = steps[0][1] @ head["kernel"] + head["bias"]
            values[t, b] = value_of(np.float64(batch.obs[t, b]), memory)
            extras = []
            if "last_action" in config.core_inputs:
                extras.append(np.eye(2)[batch.action[t, b]])
            if "last_reward" in config.core_inputs:
                extras.append(np.float64(batch.reward[t, b])[None])
            memory = {"cores": tuple(carry for carry, _ in steps), "extras": extras}
            successors[t, b] = value_of(np.float64(batch.final_obs[t, b]), memory)
            if done[t, b] and not shift:
                memory = first
    return logits, values, successors


def cores_extras(carry):
    return [x for x in (carry.last_action, carry.last_reward) if not isinstance(x, tuple)]


@pytest.mark.parametrize("ends", [0.0, 0.1, 0.5])
def test_a_replay_is_that_of_a_slow_loop(agent, ends):
    config, network, params = agent
    batch, carry = random_batch(ends), random_carry(network)
    found = REPLAY(network, params, None, carry, batch)
    logits, values, successors = slow_replay(config, params, carry, batch)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    own = jax.nn.log_softmax(found.distribution.logits).reshape(*SHAPE, 2)
    np.testing.assert_allclose(own, log_probs, atol=1e-5)
    np.testing.assert_allclose(found.values.reshape(SHAPE), values, atol=1e-5)
    apply = jax.vmap(partial(network.apply, params, method="critic"))
    np.testing.assert_allclose(apply(batch.final_obs, found.after), successors, atol=1e-5)
    if ends:
        shifted = slow_replay(config, params, carry, batch, shift=1)
        assert np.abs(shifted[1] - values).max() > 1e-3
    following = np.array(batch.terminated | batch.truncated)[-1]
    for now, first in zip(jax.tree.leaves(found.carry), jax.tree.leaves(carry)):
        assert now.shape == first.shape
        assert np.all(np.asarray(now)[following] == 0)


def test_the_update_replays_what_acting_computed(agent):
    """Over real episodes, which end at different times: at random actions CartPole's last for some
    20 steps."""
    config, network, _ = agent
    state = tiny.init(config, jax.random.key(3))
    env, network = rollout.make_env_and_network(config)
    collect = jax.jit(partial(rollout.collect, config, env, network))
    gradients = jax.jit(partial(learner.compute_gradients, config, network))
    step = jax.jit(partial(rollout.policy, network, state.learner))
    ends = 0
    actor = state.actor
    for _ in range(4):
        carry = actor.carry
        moved, batch = collect(state.learner, actor)
        found = REPLAY(network, state.learner.params, None, carry, batch)
        logits = found.distribution.logits.reshape(*SHAPE, 2)
        for t in range(SHAPE[0]):
            row = jax.tree.map(lambda x, t=t: x[t], batch._replace(recorded=None))
            distribution, carries = step(row.obs, None, carry)
            np.testing.assert_allclose(distribution.logits, logits[t], atol=1e-5)
            carry = cores.after(network, carry, carries, row.action, row.reward)
            carry = cores.unless_ended(network, carry, row.terminated | row.truncated)
        ends += int((batch.terminated | batch.truncated).sum())
        actor = gradients(state.learner, moved, batch)[0]
        jax.tree.map(
            partial(np.testing.assert_allclose, atol=1e-5), carry.cores[0], actor.carry.cores[0]
        )
    assert ends > 5


def slow_advantages(batch, values, successors, gamma):
    """[T, B] of n-step returns, as gae_lambda is 1."""
    advantages = np.zeros(SHAPE)
    for b in range(SHAPE[1]):
        running = 0.0
        for t in reversed(range(SHAPE[0])):
            done = batch.terminated[t, b] or batch.truncated[t, b]
            last = t == SHAPE[0] - 1
            successor = successors[t, b] if done or last else values[t + 1, b]
            target = batch.reward[t, b] + gamma * successor * (not batch.terminated[t, b])
            running = target - values[t, b] + gamma * (not done) * running
            advantages[t, b] = running
    return advantages


@pytest.mark.parametrize("ends", [0.0, 0.1, 0.5])
def test_the_gradient_is_that_of_a_slow_loop(agent, ends):
    """Against finite differences of the loss in float64, along random directions: through all steps
    of the rollout, with advantages that bootstrap from the true successors, held constant."""
    config, network, params = agent
    config = dataclasses.replace(config, ent_coef=0.01)
    batch, carry = random_batch(ends), random_carry(network)
    state = tiny.init_learner(config, network, SPEC, jax.random.key(0))
    found, _, following = tiny.loss_gradients(config, network, state, batch, carry)
    _, values, successors = slow_replay(config, params, carry, batch)
    advantages = slow_advantages(batch, values, successors, config.gamma)
    targets = advantages + values
    rng = np.random.default_rng(2)
    direction = jax.tree.map(lambda x: rng.normal(size=x.shape), params)

    def loss(step):
        moved = jax.tree.map(lambda x, d: np.float64(x) + step * d, params, direction)
        logits, values, _ = slow_replay(config, moved, carry, batch)
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        chosen = np.take_along_axis(log_probs, batch.action[..., None], -1)[..., 0]
        entropy = -(np.exp(log_probs) * log_probs).sum(-1)
        squares = 0.5 * np.square(targets - values)
        return np.mean(-chosen * advantages + config.vf_coef * squares - 0.01 * entropy)

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(direction))
    assert sum(np.vdot(x, d) for x, d in pairs) == pytest.approx(slope, rel=1e-3)
    own = REPLAY(network, params, None, carry, batch).carry
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), following, own)


@pytest.mark.parametrize(
    ("space", "action", "expected"),
    [
        (Discrete(3), np.int32([2, 0]), [[0, 0, 1], [1, 0, 0]]),
        (MultiDiscrete((2,), (2, 3)), np.int32([[1, 2], [0, 1]]), [[0, 1, 0, 0, 0, 1], None]),
        (Box((1,), (-1.0,), (1.0,)), np.float32([[0.5], [-3.0]]), [[0.5], [-3.0]]),
    ],
)
def test_last_actions_are_one_hot_or_as_they_were_sampled(space, action, expected):
    found = np.asarray(cores.encoded(space, action))
    for row, wanted in zip(found, expected):
        if wanted is not None:
            np.testing.assert_array_equal(row, np.float32(wanted))
    spec = SPEC._replace(action_space=space)
    config = dataclasses.replace(CONFIG, core_inputs=("last_action",))
    first = networks.initial_carry(networks.make(config, spec), 2)
    assert first.last_action.shape == found.shape


class Sums(nn.RNNCellBase):
    """A cell of a user's own: outputs the sum of its inputs so far."""

    rows: bool = True

    @nn.compact
    def __call__(self, carry, x):
        carry = carry + x.sum(axis=1, keepdims=True)
        return carry, carry if self.rows else carry[:, 0]

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return jnp.zeros((*input_shape[:-1], 1))

    @property
    def num_feature_axes(self):
        return 1


class NoArrays(Sums):
    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return "nothing"


class OtherCarry(Sums):
    """Whose carry is not what it was after a step."""

    change: Callable = lambda carry: (carry,)

    def __call__(self, carry, x):
        return self.change(carry), carry


class NoPair(Sums):
    def __call__(self, carry, x):
        return carry


@pytest.mark.parametrize("core", [Sums, Sums(), "test_cores:Sums"])
def test_a_cell_of_a_users_own(core):
    config = dataclasses.replace(CONFIG, core=core, core_inputs=())
    network = networks.make(config, SPEC)
    params = networks.init(config, network, SPEC, jax.random.key(0))
    batch, carry = random_batch(0.1), networks.initial_carry(network, CONFIG.num_envs)
    found = replay(network, params, None, carry, batch, rows=None)
    features = network.apply(params, batch.obs.reshape(-1, 4), method="torsos")[1]
    sums, done = np.zeros(SHAPE), batch.terminated | batch.truncated
    each = np.asarray(features).sum(axis=1).reshape(SHAPE)
    for t in range(SHAPE[0]):
        before = np.where(done[t - 1], 0.0, sums[t - 1]) if t else 0.0
        sums[t] = before + each[t]
    head = params["params"]["critic_head"]
    expected = sums.ravel() * head["kernel"][0, 0] + head["bias"][0]
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("core", "error", "message"),
    [
        ("lstn", ValueError, r"unknown core 'lstn': did you mean lstm"),
        ("math:pi", TypeError, r"core = 'math:pi': must be a flax.linen RNN cell"),
        (nn.Dense(3), TypeError, "core = 'Dense': must be a flax.linen RNN cell"),
        (Sums(rows=False), ValueError, r"core Sums: must give outputs \[B, H\]"),
        (OtherCarry(), ValueError, r"like the one it is given, float32\[1, 1\], not \(float32"),
        (OtherCarry(change=lambda x: x.astype("bfloat16")), ValueError, r"not bfloat16\[1, 1\]"),
        (OtherCarry(change=lambda x: x.repeat(2, 1)), ValueError, r"not float32\[1, 2\]"),
        (NoPair(), ValueError, r"core NoPair: must give \(carry, outputs\), not float32"),
        (NoArrays(), TypeError, r"core NoArrays.initialize_carry\(1, 1\): must give arrays"),
    ],
)
def test_a_wrong_core_is_told_in_a_line(core, error, message):
    config = dataclasses.replace(CONFIG, core=core)
    with pytest.raises(error, match=message) as caught:
        networks.init(config, networks.make(config, SPEC), SPEC, jax.random.key(0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"core_inputs": ("last_acton",)}, "did you mean last_action"),
        ({"core": "none"}, r"core_inputs = .*: there is no core"),
        ({"core_size": 0}, "core_size = 0: must be at least 1"),
    ],
)
def test_wrong_settings_of_a_core(settings, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **settings).validate()


def test_a_policy_asks_for_its_carry():
    learner = tiny.init(CONFIG, jax.random.key(0)).learner
    policy = evaluation.policy(CONFIG, learner, greedy=True)
    with pytest.raises(ValueError, match=r"carry = None: the agent has a core; give policy.initia"):
        policy(np.zeros(4))
    carry = policy.initial_carry()
    one, carry = policy(np.ones(4), None, carry)
    other, carry = policy(np.ones(4), None, carry, reward=1.0)
    assert one.shape == other.shape == ()
    with pytest.raises(ValueError, match=r"carry of 1 rows: there are 3 .*initial_carry\(3\)$"):
        policy(np.ones((3, 4)), None, policy.initial_carry())
    many, _ = policy(np.ones((3, 4)), None, policy.initial_carry(3))
    np.testing.assert_array_equal(many, np.full(3, one))


@pytest.mark.slow
def test_a_task_for_a_memory_is_learnt():
    """The T-maze's best return is 1, and 0 without a memory: two seeds of each."""
    config = Config(
        env="TMaze",
        env_params={"corridor": 3},
        total_timesteps=60_000,
        num_envs=16,
        num_steps=8,
        hidden_sizes=(8,),
        optimizer="adam",
        learning_rate=1e-2,
        ent_coef=0.01,
    )
    found = {}
    for core in ("none", "gru"):
        own = dataclasses.replace(config, core=core, core_size=8)
        train = jax.jit(jax.vmap(a2c.train, (None, 0)))
        _, metrics = train(own, jax.random.split(jax.random.key(0), 2))
        found[core] = np.asarray(metrics.episodic_return)[:, -10:].mean(axis=1)
    assert found["none"].max() < 0.3
    assert found["gru"].min() > 0.8
