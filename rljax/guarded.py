"""Environments of gymnasium's behind their spec, as its vector environments step them.

They may be in other processes: so they do not raise what goes wrong, but tell it where it reaches
the other side of a pipe as well.
"""

import traceback
import warnings
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

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
        self.encode, self.decode = host.encode, host.decode
        self.masked = host.spec.action_space if host.spec.has_mask else None
        self.env, self.error, self.metadata = None, "", {}
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
            return self._encode(obs, info)
        except Exception:
            return self.nothing, {"error": traceback.format_exc().rstrip()}

    def step(self, action):
        try:
            obs, reward, terminated, truncated, info = self.env.step(self.decode(action))
            obs, info = self._encode(obs, info)
            reward = reward if type(reward) is float else np.asarray(reward).item()
            if terminated or truncated:
                obs = obs.copy()  # the environment may use the array again when it is reset
            answer = obs, reward, bool(terminated), bool(truncated), info
        except Exception:
            answer = self.nothing, 0.0, False, False, {"error": traceback.format_exc().rstrip()}
        if "error" in answer[-1]:  # no end of an episode, which would be reset
            return *answer[:2], False, False, answer[-1]
        return answer

    def close(self):
        if self.env is not None:
            close(self.env)

    def _encode(self, obs, info):
        try:
            obs = self.encode(obs)
            if self.masked is not None:
                if "action_mask" not in info:
                    raise ValueError("the info has no action_mask, and had one when reset first")
                return obs, {"mask": spaces.mask(self.masked, info["action_mask"])}
        except (ValueError, TypeError, KeyError, IndexError) as error:
            return self.nothing, {"error": f"{type(error).__name__}: {error}"}
        if "action_mask" in info:
            return self.nothing, {"error": "it gives an action_mask, and gave none when reset"}
        return obs, {}


def close(env: gymnasium.Env) -> None:
    """Closes an environment; a failure is a warning, for nothing is lost by it."""
    try:
        env.close()
    except Exception as error:
        warnings.warn(f"an environment cannot be closed: {error!r}", stacklevel=2)


class InTurn(VectorEnv):
    """Guarded environments stepped one after another, with auto-reset in the same step: what
    gymnasium's SyncVectorEnv does, with less work besides."""

    metadata: ClassVar = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, host: Any, num_envs: int):
        self.num_envs = num_envs
        self.envs = [Guarded(host) for _ in range(num_envs)]

    def reset(self, *, seed=None, options=None):
        answers = [env.reset(seed=one) for env, one in zip(self.envs, seed)]
        obs, infos = zip(*answers)
        return np.array(obs), self._join(infos)

    def step(self, actions):
        answers = [env.step(action) for env, action in zip(self.envs, actions)]
        obs, reward, terminated, truncated, infos = zip(*answers)
        obs, reward = np.array(obs), np.array(reward)
        flags = np.array(terminated), np.array(truncated)
        done = np.logical_or(*flags)
        if not done.any():
            return obs, reward, *flags, self._join(infos)
        infos, final_obs = list(infos), list(obs.copy())
        for i in np.flatnonzero(done):
            obs[i], infos[i] = self.envs[i].reset()
        ends = {"final_obs": final_obs, "_final_obs": done}
        return obs, reward, *flags, {**ends, **self._join(infos)}

    def get_attr(self, name):
        return tuple(getattr(env, name) for env in self.envs)

    def close_extras(self, **kwargs):
        for env in self.envs:
            env.close()

    def _join(self, infos):
        """The infos of all as one, as gymnasium's vector environments give it."""
        joined = {}
        if any(infos):
            for i, info in enumerate(infos):
                joined = self._add_info(joined, info, i)
        return joined
