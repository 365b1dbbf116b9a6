"""One environment of gymnasium's behind its spec, as gymnasium's vector environments step it.

It may be in another process: so it does not raise what goes wrong, but tells it where it reaches
the other side of a pipe as well.
"""

import traceback
from typing import Any

import gymnasium
import numpy as np

from rljax import spaces


class Guarded(gymnasium.Env):
    """Takes actions numbered from 0 and gives encoded observations, as `HostEnv.spec` says.

    `error` says why the environment could not be made, or is empty; later errors are
    `info["error"]`. The valid actions are `info["mask"]`, and nothing else of the info is kept.
    """

    def __init__(self, host: Any):
        """
        Args:
            host: a `host.HostEnv`.
        """
        self.host, self.env, self.error, self.metadata = host, None, "", {}
        shapes = host.spec.obs_shape, host.spec.action_space.shape
        kinds = (gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32) for shape in shapes)
        self.observation_space, self.action_space = kinds
        self.nothing = np.zeros(host.spec.obs_shape, np.float32)
        try:
            self.env = host.build()
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
            return
        own = self.env.observation_space, self.env.action_space
        if own != host.declared:
            self.error = f"its spaces are {own}, those of the first environment {host.declared}"

    def reset(self, *, seed=None, options=None):
        try:
            obs, info = self.env.reset(seed=seed)
        except Exception:
            return self.nothing, {"error": traceback.format_exc().rstrip()}
        return self._encode(obs, info)

    def step(self, action):
        try:
            obs, reward, terminated, truncated, info = self.env.step(self.host.decode(action))
            obs, info = self._encode(obs, info)
            answer = obs, float(reward), bool(terminated), bool(truncated), info
        except Exception:
            answer = self.nothing, 0.0, False, False, {"error": traceback.format_exc().rstrip()}
        if "error" in answer[-1]:  # no end of an episode, which would be reset
            return *answer[:2], False, False, answer[-1]
        return answer

    def close(self):
        if self.env is not None:
            self.env.close()

    def _encode(self, obs, info):
        spec = self.host.spec
        try:
            obs = spaces.encode(spec.observation, obs)
            if spec.has_mask:
                return obs, {"mask": spaces.mask(spec.action_space, info["action_mask"])}
        except (ValueError, TypeError, KeyError, IndexError) as error:
            return self.nothing, {"error": f"{type(error).__name__}: {error}"}
        if "action_mask" in info:
            return self.nothing, {"error": "it gives an action_mask, and gave none when reset"}
        return obs, {}
