"""Small environments whose answer is known, in gymnax's form."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.environment import Environment, EnvParams, EnvState


@struct.dataclass
class State(EnvState):
    mark: jax.Array


@struct.dataclass
class Params(EnvParams):
    max_steps_in_episode: int = 1000


class Probe(Environment):
    """An observation of one number, `mark`, which starts at 0; two actions."""

    @property
    def default_params(self):
        return Params()

    def reset_env(self, key, params):
        state = State(time=jnp.int32(0), mark=jnp.float32(0))
        return state.mark[None], state

    def step_env(self, key, state, action, params):
        reward, mark, terminated = self.rule(state, action)
        state = State(time=state.time + 1, mark=jnp.float32(mark))
        return state.mark[None], state, jnp.float32(reward), jnp.bool_(terminated), {}

    def rule(self, state, action):
        """(reward, next mark, terminated)."""
        raise NotImplementedError

    def action_space(self, params):
        return spaces.Discrete(2)


class ConstantReward(Probe):
    """One step, reward 1: V = 1."""

    def rule(self, state, action):
        return 1.0, 0.0, True


class RewardByObservation(Probe):
    """One step, the mark is -1 or 1 and so is the reward: V(s) = s."""

    def reset_env(self, key, params):
        mark = 2.0 * jax.random.bernoulli(key) - 1.0
        return mark[None], State(time=jnp.int32(0), mark=mark)

    def rule(self, state, action):
        return state.mark, state.mark, True


class DelayedReward(Probe):
    """Two steps, the reward 1 after the second: V(0) = gamma, V(1) = 1."""

    def rule(self, state, action):
        return state.mark, 1.0, state.mark == 1.0


class RewardByAction(Probe):
    """One step, reward 1 for action 1 and -1 for action 0."""

    def rule(self, state, action):
        return 2.0 * action - 1.0, 0.0, True


class Configured(RewardByAction):
    """Remembers what it was made with."""

    def __init__(self, **kwargs):
        self.kwargs = kwargs


class Truncating(Probe):
    """Never ends, but is cut every 5 steps. Reward -5 from the mark 0, where episodes start, and
    1 ever after: V(1) = 1 / (1 - gamma), V(0) = -5 + gamma V(1).

    Taking the cut for an end, or valuing the observation after the reset, gives far less.
    """

    @property
    def default_params(self):
        return Params(max_steps_in_episode=5)

    def rule(self, state, action):
        return jnp.where(state.mark == 0.0, -5.0, 1.0), 1.0, False


class Target(Probe):
    """One step, a continuous action in [-1, 3], reward -(action - 2)^2."""

    def rule(self, state, action):
        return -jnp.square(action[0] - 2.0), 0.0, True

    def action_space(self, params):
        return spaces.Box(-1.0, 3.0, (1,))


class Scripted(Probe):
    """The mark counts the steps of the episode, and is the reward; ends after 3 steps."""

    def rule(self, state, action):
        return state.mark, state.mark + 1.0, state.mark == 2.0


class Telling(Probe):
    """Ends with a chance of 1 in 4 at each step, and is cut after 6; the reward is the action. The
    info tells the episode's steps and return so far, and whether it is longer than 2."""

    @property
    def default_params(self):
        return Params(max_steps_in_episode=6)

    def step_env(self, key, state, action, params):
        state = State(time=state.time + 1, mark=state.mark + action)
        info = {"steps": state.time, "episode": {"r": state.mark}, "is/long": state.time > 2}
        terminated = jax.random.bernoulli(key, 0.25)
        return state.mark[None], state, jnp.float32(action), terminated, info


class Counter(Probe):
    """The mark grows by the action, 0 to 2, and ends an episode from 5 on; it is cut after 4 steps.
    The reward is mark times action; 2 is valid at even marks. Observed are the mark and whether it
    is odd."""

    @property
    def default_params(self):
        return Params(max_steps_in_episode=4)

    def reset_env(self, key, params):
        state = State(time=jnp.int32(0), mark=jnp.float32(0))
        return self.observe_mark(state), state

    def step_env(self, key, state, action, params):
        reward = state.mark * action
        state = State(time=state.time + 1, mark=state.mark + action)
        return self.observe_mark(state), state, reward, state.mark >= 5, {}

    def observe_mark(self, state):
        return {"mark": state.mark[None], "odd": jnp.int32(state.mark) % 2}

    def action_mask(self, state, params):
        return jnp.array([True, True, state.mark % 2 == 0])

    def observation_space(self, params):
        return spaces.Dict({"mark": spaces.Box(0, 9, (1,)), "odd": spaces.Discrete(2)})

    def action_space(self, params):
        return spaces.Discrete(3)


class Picture(Probe):
    """Numbers [4, 4, 1] of some dtype, or bools: whether they are odd. The first is a mark from 0
    to 255, the reward in hundreds, which grows by 7 and by the action a step; an episode ends where
    it divides by 5, and is cut after 4 steps. They are declared to be from 0 to 255, and scaled."""

    def __init__(self, dtype="uint8", later=None):
        self.dtypes = {"reset": dtype, "step": later or dtype}

    @property
    def default_params(self):
        return Params(max_steps_in_episode=4)

    def reset_env(self, key, params):
        mark = jax.random.randint(key, (), 0, 256).astype(jnp.float32)
        return self.picture(mark, "reset"), State(time=jnp.int32(0), mark=mark)

    def step_env(self, key, state, action, params):
        mark = (state.mark + 7 + action) % 256
        state = State(time=state.time + 1, mark=mark)
        return self.picture(mark, "step"), state, mark / 100, mark % 5 == 0, {}

    def picture(self, mark, method):
        numbers = (jnp.int32(mark) + 3 * jnp.arange(16)).reshape(4, 4, 1) % 256
        dtype = self.dtypes[method]
        return (numbers % 2 if dtype == "bool" else numbers).astype(dtype)

    def observation_space(self, params):
        return spaces.Box(0, 255, (4, 4, 1))


class MaskedOut(Scripted):
    """After a step no action is valid."""

    def action_mask(self, state, params):
        return jnp.array([state.mark == 0, state.mark == 0])


class MaskedInInfo(Scripted):
    """Gives its mask where only gymnasium's environments can."""

    def step_env(self, key, state, action, params):
        return *super().step_env(key, state, action, params)[:-1], {"action_mask": jnp.ones(2)}


class Unplayable(Scripted):
    """Its action space is of a kind that no policy here can play."""

    def action_space(self, params):
        return spaces.Dict({"left": spaces.Discrete(2)})


class CallingBack(Probe):
    """Calls the host for its rewards, which raises an exception after so many calls."""

    def __init__(self, calls=40):
        self.calls = calls

    def rule(self, state, action):
        like = jax.ShapeDtypeStruct((), jnp.float32)
        reward = jax.pure_callback(self._reward, like, action, vmap_method="sequential")
        return reward, 0.0, True

    def _reward(self, action):
        self.calls -= 1
        if self.calls < 0:
            raise RuntimeError("the simulator is out of fuel")
        return np.float32(1)


@struct.dataclass
class StateWithNothing(State):
    nothing: jax.Array


class WithNothing(Probe):
    """`RewardByAction` whose state has an array without elements, as that of pgx's Asterix."""

    def reset_env(self, key, params):
        mark = jnp.float32(0)
        return mark[None], StateWithNothing(jnp.int32(0), mark, jnp.zeros(0))

    def step_env(self, key, state, action, params):
        after = state.replace(time=state.time + 1)
        return state.mark[None], after, jnp.float32(2 * action - 1), jnp.bool_(True), {}
