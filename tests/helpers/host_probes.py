"""Small environments in gymnasium's form, some of which go wrong on purpose."""

import os
import signal
import sys
import time
from decimal import Decimal
from multiprocessing import parent_process

import gymnasium
import numpy as np


class RewardByAction(gymnasium.Env):
    """One step, reward 1 for action 1 and -1 for action 0."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 2.0 * action - 1.0, True, False, {}


class Drawing(RewardByAction):
    """Draws itself: a picture whose shade is the number of its steps, or what else is asked for."""

    def __init__(self, render_mode=None, given="picture"):
        self.render_mode, self.given, self.steps = render_mode, given, 0

    def step(self, action):
        self.steps += 1
        return super().step(action)

    def render(self):
        if self.given == "error":
            raise RuntimeError("no context\nof OpenGL")
        return None if self.given == "nothing" else np.full((400, 600, 3), self.steps, np.uint8)


class Sized(RewardByAction):
    """The same, for a test to change."""


class Walk(RewardByAction):
    """Episodes of 3 steps that count 0, 1, 2, 3, cut at the third, with a reward of 1 for each."""

    observation_space = gymnasium.spaces.Box(0, 10, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.float32([self.steps]), 1.0, False, self.steps == 3, {}


def _raise(error):
    raise error


ANSWERS = {
    "reward None": lambda obs, reward, *rest: (obs, None, *rest),
    "reward text": lambda obs, reward, *rest: (obs, "1.0", *rest),
    "two rewards": lambda obs, reward, *rest: (obs, np.ones(2), *rest),
    "no reward": lambda obs, reward, *rest: (obs, [], *rest),
    "complex reward": lambda obs, reward, *rest: (obs, 1j, *rest),
    "reward NaN": lambda obs, reward, *rest: (obs, float("nan"), *rest),
    "reward 1e39": lambda obs, reward, *rest: (obs, 1e39, *rest),
    "reward 10**400": lambda obs, reward, *rest: (obs, 10**400, *rest),
    "reward Decimal": lambda obs, reward, *rest: (obs, Decimal("1.0"), *rest),
    "reward 0-d": lambda obs, reward, *rest: (obs, np.array(1.0), *rest),
    "reward 1-d": lambda obs, reward, *rest: (obs, np.ones((1, 1)), *rest),
    "reward bool": lambda obs, reward, *rest: (obs, True, *rest),
    "reward uint8": lambda obs, reward, *rest: (obs, np.uint8(1), *rest),
    "flag NumPy": lambda obs, reward, *rest: (obs, reward, np.bool_(0), np.array([False]), {}),
    "flag 0": lambda obs, reward, *rest: (obs, reward, 0, 0.0, {}),
    "flag None": lambda obs, reward, *rest: (obs, reward, None, False, {}),
    "flag text": lambda obs, reward, *rest: (obs, reward, False, "False", {}),
    "two flags": lambda obs, reward, *rest: (obs, reward, np.zeros(2, bool), False, {}),
    "flag 2": lambda obs, reward, *rest: (obs, reward, 2, False, {}),
    "info None": lambda *answer: (*answer[:4], None),
    "four values": lambda obs, reward, *rest: (obs, reward, True, {}),
    "six values": lambda *answer: (*answer, {}),
    "None": lambda *answer: None,
    "obs None": lambda obs, *rest: (None, *rest),
    "obs text": lambda obs, *rest: (["1.0"], *rest),
    "complex obs": lambda obs, *rest: (obs * 1j, *rest),
    "obs 1e39": lambda obs, *rest: (np.array([1e39]), *rest),
    "exit": lambda *answer: sys.exit(3),
    "interrupt": lambda *answer: _raise(KeyboardInterrupt),
    "nothing said": lambda *answer: _raise(AssertionError),
    "dead": lambda *answer: os._exit(3),
    "aborted": lambda *answer: os.abort(),
}
"""What step could answer instead of (obs, 1.0, False, False, {})."""


class Answering(Walk):
    """Answers something else at its second step."""

    def __init__(self, what):
        self.what = what

    def step(self, action):
        answer = super().step(action)
        return ANSWERS[self.what](*answer) if self.what and self.steps == 2 else answer


class AnsweringLate(Walk):
    """Answers something else at that step of its life."""

    def __init__(self, what, steps=202):
        self.what, self.left = what, steps

    def step(self, action):
        self.left -= 1
        answer = super().step(action)
        return answer if self.left else ANSWERS[self.what](*answer)


class Endless(Walk):
    def step(self, action):
        return np.zeros(1, np.float32), 1.0, False, False, {}


class Counted(Walk):
    """Counts how many were made, are open and were open at once, and their steps; chance is of the
    seed: an episode's length from 1 to 9, and the share of its reward that action 1 gains."""

    made = alive = most = walked = 0

    def __init__(self):
        kind = type(self)
        kind.made, kind.alive = kind.made + 1, kind.alive + 1
        kind.most = max(kind.most, kind.alive)

    def reset(self, *, seed=None, options=None):
        assert seed is not None or self.unwrapped._np_random is not None
        gymnasium.Env.reset(self, seed=seed)
        self.steps, self.length = 0, self.np_random.integers(1, 10)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        type(self).walked += 1
        reward = 1.0 + action * self.np_random.random()
        return np.float32([self.steps]), reward, self.steps == self.length, False, {}

    def close(self):
        type(self).alive -= 1


def recorded():
    """Whose info has {"episode": {"r", "l", "t"}} at the end of an episode, and nothing else."""
    return gymnasium.wrappers.RecordEpisodeStatistics(Counted())


class Telling(Walk):
    """Its info holds this value, at an episode's last step alone."""

    def __init__(self, value=1.0):
        self.value = value

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated, truncated, {"told": self.value} if truncated else info


class Single(Walk):
    """There can be but one."""

    made = alive = 0

    def __init__(self):
        if type(self).alive:
            raise RuntimeError("the port\nis in use")
        type(self).alive = 1
        type(self).made += 1

    def close(self):
        type(self).alive = 0


class NothingLeft(Walk):
    """Says at the end of an episode that no action is valid, or says nothing; at first, 1 alone."""

    def __init__(self, at_end="none"):
        self.at_end = at_end

    def reset(self, *, seed=None, options=None):
        return super().reset()[0], {"action_mask": np.array([0, 1])}

    def step(self, action):
        assert action == (self.steps == 0), "an invalid action"
        *answer, _ = super().step(action)
        if self.steps < 3:
            return *answer, {"action_mask": np.array([1, 0])}
        ends = {"none": {"action_mask": np.zeros(2)}, "missing": {}, "odd": {"action_mask": None}}
        return *answer, ends[self.at_end]


class WithoutSpaces(gymnasium.Env):
    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}


class BareReset(Walk):
    def reset(self, *, seed=None, options=None):
        return super().reset()[0]


class ResetWithoutInfo(Walk):
    def reset(self, *, seed=None, options=None):
        return super().reset()[0], None


class Leaving(Walk):
    def __init__(self):
        sys.exit("there is no\nlicence")


class LeavingInWorkers(Walk):
    def __init__(self):
        if parent_process():
            os._exit(7)


class LeavingWhenClosed(Walk):
    def close(self):
        sys.exit(3)


class Raising(RewardByAction):
    """Fails at its hundredth step in a worker."""

    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps == 100 and parent_process():
            raise RuntimeError("the simulator is out of fuel")
        return super().step(action)


class Dying(RewardByAction):
    """Kills its worker at the first step."""

    def step(self, action):
        os.kill(os.getpid(), signal.SIGKILL)


class OnCpu(RewardByAction):
    """Fails in a worker that could take an accelerator."""

    def reset(self, *, seed=None, options=None):
        if parent_process():
            import jax

            platforms = os.environ["JAX_PLATFORMS"], jax.config.jax_platforms
            assert platforms == ("cpu", "cpu"), platforms
            assert {device.platform for device in jax.devices()} == {"cpu"}
        return super().reset(seed=seed)


class RaisingAtReset(RewardByAction):
    def reset(self, *, seed=None, options=None):
        raise ValueError("the track is closed")


class RaisingAtResetInWorkers(RewardByAction):
    def reset(self, *, seed=None, options=None):
        if parent_process():
            raise ValueError("the track is closed")
        return super().reset(seed=seed)


class NotInWorkers(RewardByAction):
    def __init__(self):
        if parent_process():
            raise ValueError("there is no simulator on this machine")


class OtherShape(Walk):
    """Its third observation has two numbers instead of one."""

    def step(self, action):
        obs, *answer = super().step(action)
        return (np.zeros(2, np.float32) if self.steps == 3 else obs), *answer


class TurningNaN(Walk):
    """Its third observation is not finite."""

    def step(self, action):
        obs, *answer = super().step(action)
        return (obs * np.nan if self.steps == 3 else obs), *answer


class InfiniteReward(Walk):
    def step(self, action):
        obs, _, *answer = super().step(action)
        return obs, np.inf, *answer


class RaisingAtThree(Walk):
    def step(self, action):
        answer = super().step(action)
        if self.steps == 3:
            raise RuntimeError("the simulator is out of fuel")
        return answer


class RaisingInEvaluation(Walk):
    """The seventh environment, and those after it, cannot step."""

    made = 0

    def __init__(self):
        type(self).made += 1
        self.number = self.made

    def step(self, action):
        if self.number > 6:
            raise RuntimeError("only six licences")
        return super().step(action)


class NoMoreThanSix(Walk):
    """The seventh cannot be made."""

    made = 0

    def __init__(self):
        type(self).made += 1
        if self.made > 6:
            raise RuntimeError("only six licences")


class Reusing(Walk):
    """Gives the same array again and again."""

    obs = np.zeros(1, np.float32)

    def __init__(self):
        self.obs = np.zeros(1, np.float32)

    def reset(self, *, seed=None, options=None):
        self.obs[:] = super().reset(seed=seed)[0]
        return self.obs, {}

    def step(self, action):
        obs, *answer = super().step(action)
        self.obs[:] = obs
        return self.obs, *answer


class Odd(gymnasium.Env):
    """Changes its action, gives a reward of one element and cannot be closed."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        action *= 0.5
        return action, np.array([1.0]), np.bool_(False), False, {"distance": 1}

    def close(self):
        raise RuntimeError("it is stuck")


class HugeAtReset(Walk):
    """Its second episode begins with a number that no array holds."""

    resets = 0
    observation_space = gymnasium.spaces.Box(0, 10, (1,), np.int64)

    def reset(self, *, seed=None, options=None):
        self.resets += 1
        obs, info = super().reset(seed=seed)
        return (obs if self.resets == 1 else [10**400]), info


class Explosive(Odd):
    """Dies of actions that are not finite, and rewards so much that they come."""

    def step(self, action):
        assert np.all(np.isfinite(action))
        return np.ones(2, np.float32), 1e30, False, False, {}

    def close(self):
        pass


class LocalError(Exception):
    """Cannot be sent to another process as it is."""

    def __init__(self, one, two):
        super().__init__(one)


class RaisingOddly(Walk):
    def step(self, action):
        raise LocalError("out of", "luck")


class Slow(Walk):
    """Takes its time."""

    def step(self, action):
        time.sleep(0.002)
        return super().step(action)


class Masked(RewardByAction):
    """Four steps of three actions, of which only those that are told are valid: action 2 never
    twice in a row, action 0 never at first. Returns 4 with valid actions, and never with others.
    """

    action_space = gymnasium.spaces.Discrete(3, start=-1)
    mask = np.ones(3, np.int8)

    def reset(self, *, seed=None, options=None):
        self.steps, self.mask = 0, np.array([0, 1, 1], np.int8)
        return np.zeros(1, np.float32), {"action_mask": self.mask}

    def step(self, action):
        assert isinstance(action, int)
        assert self.mask[action + 1] == 1, "an invalid action"
        self.steps, self.mask = self.steps + 1, np.array([1, 1, action != 1], np.int8)
        return np.zeros(1, np.float32), 1.0, self.steps == 4, False, {"action_mask": self.mask}


class MaskedTooLate(RewardByAction):
    def step(self, action):
        return *super().step(action)[:-1], {"action_mask": np.ones(2)}


class Sampling(gymnasium.Env):
    """Observations drawn from a space; actions must be of theirs. Episodes of 3 steps."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), (action, self.action_space)
        self.steps += 1
        return self.observation_space.sample(), 1.0, self.steps == 3, False, {}


class Counter(gymnasium.Env):
    """`probes.Counter` in gymnasium's form."""

    observation_space = gymnasium.spaces.Dict(
        {"mark": gymnasium.spaces.Box(0, 9, (1,)), "odd": gymnasium.spaces.Discrete(2)}
    )
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        self.mark = self.steps = 0
        return self._obs(), self._info()

    def step(self, action):
        reward = self.mark * action
        self.mark, self.steps = self.mark + action, self.steps + 1
        return self._obs(), reward, self.mark >= 5, self.steps >= 4, self._info()

    def _obs(self):
        return {"mark": np.float32([self.mark]), "odd": self.mark % 2}

    def _info(self):
        return {"action_mask": np.array([1, 1, self.mark % 2 == 0], np.int8)}


def differing():
    """Every second environment has other actions."""
    differing.made += 1
    return Sampling(gymnasium.spaces.Box(0, 1), gymnasium.spaces.Discrete(1 + differing.made % 2))


differing.made = 0


class Indexed(Walk):
    """Tells what it was made with, and the options of its last reset, which are numbers."""

    def __init__(self, index=-1):
        self.index = index

    def reset(self, *, seed=None, options=None):
        self.options = dict(options)
        options.clear()  # which changes no other reset's
        return super().reset(seed=seed)

    def step(self, action):
        obs, reward, terminated, truncated, _ = super().step(action)
        return obs, reward, terminated, truncated, {"index": self.index, **self.options}


def by_index(index):
    return {"index": index}


def options_by_index(index):
    return {"level": 10 + index}


def wrong_by_index(index):
    return {"index": 0} if index == 0 else index


def failing_by_index(index):
    return {"index": {0: 0}[index]}


class Game(gymnasium.Env):
    """A game of several lives: a lost one is terminated, and the game goes on. It observes (lives
    left, steps so far); each step has the score 10 and is learnt from as 1. Actions take turns to
    be valid. With `fails_at`, it fails at this step."""

    observation_space = gymnasium.spaces.Box(0, 100, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    has_score = has_over = True

    def __init__(self, length=2, lives=2, fails_at=None):
        self.length, self.lives, self.fails_at = length, lives, fails_at

    def reset(self, *, seed=None, options=None):
        self.left, self.steps = self.lives, 0
        return self._seen(), self._info()

    def step(self, action):
        self.steps += 1
        if self.steps == self.fails_at:
            raise RuntimeError("the machine is out of order")
        is_lost = self.steps % self.length == 0
        self.left -= is_lost
        told = {"score": 10, "over": self.left == 0, "steps": self.steps}
        return self._seen(), 1.0, is_lost, False, self._info() | told

    def _seen(self):
        return np.array([self.left, self.steps], np.float32)

    def _info(self):
        return {"action_mask": [self.steps % 2 == 0, self.steps % 2 == 1]}


class OverTooEarly(Game):
    """Its first step says that the game is over, and is not terminated."""

    def step(self, action):
        *answer, told = super().step(action)
        return *answer, told | {"over": told["over"] or self.steps == 1}


class Pushed(gymnasium.Env):
    """Observes the action that it is given."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return action.copy(), 0.0, False, False, {}
