"""Environments of gymnasium's behind their spec, as its vector environments step them.

They may be in other processes: so they do not raise what goes wrong, but tell it where it reaches
the other side of a pipe as well. SystemExit and KeyboardInterrupt that an environment raises are
failures of the environment, as other exceptions are; only what ends the process itself, such as
`os.abort`, cannot be caught.
"""

import numbers
import reprlib
import traceback
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from rljax.envs import spaces
from rljax.utils.errors import WRONG, in_a_line, is_interrupt, what_is_wrong

_TOO_LARGE = float(2**128 - 2**103)
"""From here on float32 has but infinity."""


def reset_answer(answer: Any) -> tuple[Any, Mapping]:
    """(observation, info) as `reset` gives them.

    Raises:
        TypeError: it is something else; the message says what.
    """
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise TypeError(f"reset must return (observation, info), not {_what(answer)}")
    _check_info(answer[1], "reset")
    return answer


def step_answer(answer: Any) -> tuple[Any, float, bool, bool, Mapping]:
    """(observation, reward, terminated, truncated, info) as `step` gives them: the reward as a
    float that float32 holds, the flags as bool.

    Raises:
        TypeError, ValueError: it is something else; the message says what.
    """
    if (type(answer) is not tuple and not isinstance(answer, tuple | list)) or len(answer) != 5:
        raise TypeError(
            "step must return (observation, reward, terminated, truncated, info), not"
            f" {_what(answer)}"
        )
    obs, reward, terminated, truncated, info = answer
    if not isinstance(reward, float):
        reward = _number(reward)
    if not -_TOO_LARGE < reward < _TOO_LARGE:
        raise ValueError(f"reward is not finite in float32: {float(reward)}")
    if type(terminated) is not bool:
        terminated = _flag("terminated", terminated)
    if type(truncated) is not bool:
        truncated = _flag("truncated", truncated)
    if type(info) is not dict:
        _check_info(info, "step")
    return obs, reward, terminated, truncated, info


def _number(reward):
    """Also of a NumPy scalar, of an array of one element, and of Python's other real numbers."""
    array = np.asarray(reward)
    is_number = array.dtype.kind in "biuf"
    if array.dtype.kind == "O" and array.size == 1:
        element = array.item()
        is_number = isinstance(element, numbers.Number) and not isinstance(element, complex)
    if array.size != 1 or not is_number:
        raise TypeError(f"reward is {_short(reward)}: must be a number")
    try:
        return float(array.item())
    except OverflowError:
        raise ValueError(f"reward is not finite in float32: {_short(reward)}") from None


def _flag(name, value):
    if type(value) is np.bool_:
        return bool(value)
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf" or array.item() not in (0, 1):
        raise TypeError(f"{name} is {_short(value)}: must be True or False")
    return bool(array.item())


def _check_info(info, function):
    if not isinstance(info, Mapping):
        raise TypeError(f"{function} must return a dict as info, not {_short(info)}")


def _what(answer):
    if isinstance(answer, tuple | list):
        return f"{len(answer)} values"
    return _short(answer)


def _short(value):
    return " ".join(reprlib.repr(value).split())


class Guarded(gymnasium.Env):
    """Takes actions numbered from 0 and gives encoded observations, as `HostEnv.spec` says.

    `error` says why the environment could not be made, or is empty; later errors are
    `info["error"]`. The valid actions are `info["mask"]`, and nothing else of the info is kept.
    """

    def __init__(self, host: Any, builds: bool = True):
        """
        Args:
            host: a `host.HostEnv`.
            builds: whether to make the environment, and not only tell of it.
        """
        self.encode, self.decode = host.encode, host.decode
        self.masked = host.spec.action_space if host.spec.has_mask else None
        self.env, self.error, self.metadata = None, "", {}
        shapes = host.spec.obs_shape, host.spec.action_space.shape
        kinds = (gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32) for shape in shapes)
        self.observation_space, self.action_space = kinds
        self.nothing = np.zeros(host.spec.obs_shape, np.float32)
        if not builds:
            return
        try:
            self.env = host.build()
            own = self.env.observation_space, self.env.action_space
            if own != host.declared:
                self.error = f"its spaces are {own}, those of the first environment {host.declared}"
        except BaseException as error:
            if is_interrupt(error):
                raise
            self.error = in_a_line(error)

    def reset(self, *, seed=None, options=None):
        try:
            answer = self.env.reset(seed=seed)
        except BaseException as error:
            return self.nothing, _failure(error)
        try:
            obs, info = reset_answer(answer)
            return self.encode(obs), self._mask(info)
        except WRONG as error:
            return self.nothing, {"error": what_is_wrong(error)}
        except BaseException as error:
            return self.nothing, _failure(error)

    def step(self, action):
        try:
            answer = self.env.step(self.decode(action))
        except BaseException as error:
            return self.nothing, 0.0, False, False, _failure(error)
        try:
            obs, reward, terminated, truncated, info = step_answer(answer)
            obs = self.encode(obs)
            if terminated or truncated:
                obs = obs.copy()  # the environment may use the array again when it is reset
                if self.masked is not None:  # nothing is left to choose
                    return obs, reward, terminated, truncated, {}
            return obs, reward, terminated, truncated, self._mask(info)
        except WRONG as error:
            told = {"error": what_is_wrong(error)}
        except BaseException as error:
            told = _failure(error)
        return self.nothing, 0.0, False, False, told  # no end of an episode, which would be reset

    def close(self):
        if self.env is not None:
            close(self.env)

    def _mask(self, info):
        if self.masked is None:
            if "action_mask" in info:
                raise ValueError("it gives an action_mask, and gave none when reset")
            return {}
        if "action_mask" not in info:
            raise ValueError("the info has no action_mask, and had one when reset first")
        return {"mask": spaces.mask(self.masked, info["action_mask"])}


def _failure(error):
    """What an environment raised, as info; a signal goes on."""
    if is_interrupt(error):
        raise error
    return {"error": traceback.format_exc().rstrip()}


def close(env: gymnasium.Env) -> None:
    """Closes an environment; a failure is a warning, for nothing is lost by it."""
    try:
        env.close()
    except BaseException as error:
        if is_interrupt(error):
            raise
        warnings.warn(f"an environment cannot be closed: {in_a_line(error)}", stacklevel=2)


class InTurn(VectorEnv):
    """Guarded environments stepped one after another, with auto-reset in the same step: what
    gymnasium's SyncVectorEnv does, with less work besides."""

    metadata: ClassVar = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, host: Any, num_envs: int):
        self.num_envs, self.envs = num_envs, []
        try:
            for _ in range(num_envs):
                self.envs.append(Guarded(host))
        except BaseException:  # a signal
            self.close_extras()
            raise

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
