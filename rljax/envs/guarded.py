"""One open gymnasium environment: its answers checked and encoded, its errors reported.

SystemExit and KeyboardInterrupt that an environment raises are errors like all others; only what
ends the process itself, such as `os.abort`, cannot be caught.
"""

import numbers
import reprlib
import traceback
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from rljax.envs import infos, spaces
from rljax.envs.interface import MDP, Step, over, wrapped
from rljax.envs.ops import IN_PYTHON
from rljax.utils.errors import WRONG, in_a_line, is_interrupt, what_is_wrong

_TOO_LARGE = float(2**128 - 2**103)  # the least number that is infinite in float32


def reset_answer(answer: Any) -> tuple[Any, Mapping]:
    """Checks that `reset` returned (observation, info); a TypeError says what it is instead."""
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise TypeError(f"reset must return (observation, info), not {_what(answer)}")
    _check_info(answer[1], "reset")
    return answer


def step_answer(answer: Any) -> tuple[Any, float, bool, bool, Mapping]:
    """Checks what `step` returned, and converts the reward to a float and the flags to bool.

    Raises:
        TypeError: it is no (observation, reward, terminated, truncated, info).
        ValueError: the reward is not finite in float32.
    """
    if (type(answer) is not tuple and not isinstance(answer, tuple | list)) or len(answer) != 5:
        wanted = "(observation, reward, terminated, truncated, info)"
        raise TypeError(f"step must return {wanted}, not {_what(answer)}")
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
    """Also from a NumPy scalar, an array of one element, and Python's other real numbers."""
    array = np.asarray(reward)
    number = array.item() if array.size == 1 and array.dtype.kind in "biufO" else None
    if not isinstance(number, numbers.Number) or isinstance(number, complex):
        raise TypeError(f"reward is {_short(reward)}: must be a number")
    try:
        return float(number)
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
    return f"{len(answer)} values" if isinstance(answer, tuple | list) else _short(answer)


def _short(value):
    return " ".join(reprlib.repr(value).split())


def reset_settings(options: Callable[[int], dict] | None, index: int) -> dict[str, Any]:
    """Keyword arguments of `reset`, beside the seed: the options, if `HostEnv.options` gives some;
    not all environments take them."""
    return {} if options is None else {"options": options(index)}


class Failed(Exception):  # noqa: N818  whoever knows when makes an error of it
    """(the index of an environment in its batch, its error: a line or a traceback)."""


class Guarded:
    """Takes actions numbered from 0 and returns encoded observations, as `HostEnv.spec` says.

    `error` says why the environment could not be made, or is empty; later errors are raised as
    `Failed`.
    """

    def __init__(self, host: Any, index: int):
        """Makes the environment of a `HostEnv` with this index."""
        self.encode, self.decode = host.encode, host.decode
        self.has_score, self.has_over = host.own_spec.has_score, host.own_spec.has_over
        self.masked = host.spec.action_space if host.spec.has_mask else None
        self.log_info, self.place = host.log_info, index - host.first
        self.is_plain = self.masked is None and not host.log_info
        self.reset_settings = partial(reset_settings, host.options, index)
        self.env, self.error = None, ""
        # Its state is the mask of valid actions.
        own = MDP(host.own_spec, self._begin, self._advance, lambda mask: mask, ops=IN_PYTHON)
        self.mdp, self.state = wrapped(own, host.wrappers), None
        self.generator, self.has_answered, self.told = np.random.default_rng(), False, {}
        try:
            self.env = host.build(index)
            own = self.env.observation_space, self.env.action_space
            if own != host.declared:
                self.error = f"its spaces are {own}, those of the first environment {host.declared}"
        except BaseException as error:
            if is_interrupt(error):
                raise
            self.error = in_a_line(error)

    def reset(self, seed: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """(obs, mask as in `Step`)."""
        self.has_answered = False
        try:
            if seed is not None:  # other numbers than the environment draws with this seed
                apart = np.random.SeedSequence(seed, spawn_key=(0,))
                self.generator = np.random.default_rng(apart)
            self.state, obs = self.mdp.reset(seed, 0)
            return obs, self.mdp.mask(self.state)
        except BaseException as error:
            raise self._failed(error) from None

    def step(self, action: Any) -> Step:
        """Without auto-reset: `obs` is `final_obs`, in an array that the environment may use again.
        Where the episode is over there is no mask, as nothing is left to choose; elsewhere there
        is no info."""
        self.has_answered = False
        try:
            self.state, answer = self.mdp.step(self.generator, self.state, action)
            if self.is_plain:
                return answer
            if not over(answer):
                return answer._replace(mask=self.mdp.mask(self.state))
            logged = infos.numbers(self.told, self.log_info) if self.log_info else None
            return answer._replace(info=logged)
        except BaseException as error:
            raise self._failed(error) from None

    def close(self) -> None:
        """Closes it; a failure is a warning."""
        if self.env is not None:
            close(self.env)

    def _begin(self, seed, index):
        """As `MDP.reset`."""
        self.has_answered = False
        answer = self.env.reset(seed=seed, **self.reset_settings())
        self.has_answered = True
        obs, info = reset_answer(answer)
        return self._mask(info), self.encode(obs)

    def _advance(self, _, mask, action):
        """As `MDP.step`."""
        self.has_answered = False
        answer = self.env.step(self.decode(action))
        self.has_answered = True
        obs, reward, terminated, truncated, info = step_answer(answer)
        obs, self.told = self.encode(obs), info
        score = _number(info["score"]) if self.has_score else None
        is_over = None
        if self.has_over:  # which counts only where the step is an end
            is_over = _flag("over", info["over"]) and (terminated or truncated)
        answer = Step(obs, reward, terminated, truncated, obs, None, None, score, is_over)
        if self.masked is None or not over(answer):
            mask = self._mask(info)
        return mask, answer

    def _mask(self, info):
        if self.masked is None:
            if "action_mask" in info:
                raise ValueError("the info has an action_mask, and had none at the first reset")
            return None
        if "action_mask" not in info:
            raise ValueError("the info has no action_mask, and had one at the first reset")
        return spaces.mask(self.masked, info["action_mask"])

    def _failed(self, error):
        """One line for a wrong answer, a traceback for what the environment raised. What a signal
        raised is raised again."""
        if is_interrupt(error):
            raise error
        is_wrong = self.has_answered and isinstance(error, WRONG)
        return Failed(
            self.place, what_is_wrong(error) if is_wrong else traceback.format_exc().rstrip()
        )


def close(env: gymnasium.Env) -> None:
    """Closes an environment; warns if that fails, as nothing is lost."""
    try:
        env.close()
    except BaseException as error:
        if is_interrupt(error):
            raise
        warnings.warn(f"an environment cannot be closed: {in_a_line(error)}", stacklevel=2)
