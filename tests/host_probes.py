"""Small environments in gymnasium's form, some of which go wrong on purpose."""

import os
import signal
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


class Walk(RewardByAction):
    """Episodes of 3 steps that count 0, 1, 2, 3, cut at the third, with a reward of 1 for each."""

    observation_space = gymnasium.spaces.Box(0, 10, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.float32([self.steps]), 1.0, False, self.steps == 3, {}


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


class NotInWorkers(RewardByAction):
    def __init__(self):
        if parent_process():
            raise ValueError("there is no simulator on this machine")
