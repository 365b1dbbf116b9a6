"""Episodes of an evaluation, played again with all that there is to see."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from rljax import evaluation, host_evaluation, networks, policies, rollout
from rljax.config import Config
from rljax.envs import interface, render
from rljax.envs.host_envs import HostEnv, check_made
from rljax.envs.vectorized import SyncEnvs
from rljax.types import TrainState
from rljax.utils import errors
from rljax.utils.forkserver import EnvError, RefusedError


class Episode(NamedTuple):
    """Of T steps; lists are of the T + 1 moments between them."""

    obs: list[np.ndarray]  # encoded
    returns: list[float]  # so far
    states: list[Any]  # of an environment in JAX, else None
    pictures: list[Any]  # [H, W, 3] bytes as the environment draws itself, else None
    distributions: list[Any]  # over the next action; where there is none, None or any
    values: list[float | None]  # as well
    finished: bool  # it ended by itself


def episodes(
    config: Config,
    learner: TrainState,
    key: jax.Array,
    number: int,
    greedy: bool = True,
    max_steps: int = 10_000,
    render_mode: str = "rgb_array",
) -> list[Episode]:
    """The episodes that `evaluation.evaluate` has with these arguments, of one learner.

    Args:
        render_mode: of a gymnasium environment, "human" for a window instead of pictures.

    Raises:
        EnvError: an environment could not be made, or drawn, or failed.
        ValueError: there can be no window.
    """
    render.without_devices()
    learner = learner._replace(opt_state=(), return_moments=None)
    if isinstance(rollout.make_env(config), HostEnv):
        config = _alone(config, render_mode)
        return _on_host(config, learner, key, number, greedy, max_steps)
    if render_mode == "human":
        what = f"{config.env} is written in JAX, and gymnasium's environments alone have windows"
        raise ValueError(f"render_mode = 'human': {what}")
    return _in_jax(config, learner, key, number, greedy, max_steps)


def _in_jax(config, learner, key, number, greedy, max_steps):
    env, network = rollout.make_env_and_network(config)
    now = jax.jit(evaluation.begin, static_argnums=2)(config, key[None], number)
    now = jax.tree.map(lambda x: x[0], now)

    @jax.jit
    def think(learner, now):
        masks = jax.vmap(env.mdp.mask)(now.env_state)
        return policies.thoughts(network, learner, now.obs, masks, now.carry)

    @jax.jit
    def step(learner, now):
        return evaluation.step(env, network, learner, greedy, now)

    played = [Episode([], [], [], [], [], [], False) for _ in range(number)]
    left = np.ones(number, bool)
    for taken in range(max_steps + 1):
        seen = now.env_state, now.obs, now.result.returns, *think(learner, now)
        shown = jax.device_get(seen)
        for i in np.flatnonzero(left):
            state, obs, so_far, distribution, value = jax.tree.map(lambda x, i=i: x[i], shown)
            _add(played[i], obs, float(so_far), state, None, distribution, float(value))
        left &= ~np.asarray(now.result.finished)
        if not left.any() or taken == max_steps:
            break
        now = step(learner, now)
    finished = np.asarray(now.result.finished)
    return [one._replace(finished=bool(finished[i])) for i, one in enumerate(played)]


def _add(episode, *moment):
    for column, x in zip(episode, moment):
        column.append(x)


def _on_host(config, learner, key, number, greedy, max_steps):
    """One after another in one environment, which draws itself where it can."""
    env = rollout.make_env(config)
    settings = evaluation.settings(config)
    try:
        opened = SyncEnvs(env)
        check_made(env.spec, opened.errors)
    except RefusedError as error:
        raise EnvError(f"in an evaluation: {error}") from error
    film, network = _Filmed(opened.envs[0], env.spec.name), networks.make(config, env.spec)
    thoughts = jax.jit(partial(policies.thoughts, network))

    def think(*before_an_action):
        distribution, (value,) = jax.device_get(thoughts(learner, *before_an_action))
        film.think(jax.tree.map(lambda x: x[0], distribution), float(value))

    try:
        act = host_evaluation.policy(settings, env.spec, learner, greedy, think)
        played = host_evaluation.Episodes(env, [film], key, number, max_steps)
        for _ in played.run(act):
            pass
    finally:
        opened.close()
    return [
        one._replace(finished=bool(finished)) for one, finished in zip(film.played, played.finished)
    ]


def _alone(config, render_mode):
    """One environment in this process, which is asked to draw itself if it is known to be able."""
    alone = dataclasses.replace(config, num_envs=1, vectorization="sync", env_processes=None)
    if not isinstance(config.env_kwargs, tuple):
        return alone  # of a function
    kwargs = {**dict(config.env_kwargs), "render_mode": render_mode}
    drawn = dataclasses.replace(alone, env_kwargs=kwargs)
    try:
        rollout.make_env(drawn)
        return drawn
    except (ValueError, TypeError, EnvError):  # it has no such mode
        if render_mode == "human":
            raise
        return alone


class _Filmed:
    """A guarded environment, whose every moment is kept."""

    def __init__(self, guarded, name):
        self.guarded, self.name, self.played = guarded, name, []

    def reset(self, seed):
        obs, mask = self.guarded.reset(seed)
        self.played.append(Episode([], [], [], [], [], [], False))
        self._keep(obs, 0.0)
        return obs, mask

    def step(self, action):
        answer = self.guarded.step(action)
        so_far = self.played[-1].returns[-1] + np.float32(interface.score(answer))
        self._keep(answer.obs, float(so_far))
        return answer

    def think(self, distribution, value):
        """Keeps what the agent thinks of the newest moment."""
        self.played[-1].distributions[-1], self.played[-1].values[-1] = distribution, value

    def _keep(self, obs, so_far):
        picture = None
        if getattr(self.guarded.env, "render_mode", None) == "rgb_array":
            picture = self._picture()
        _add(self.played[-1], obs.copy(), so_far, None, picture, None, None)

    def _picture(self):
        try:
            picture = np.array(self.guarded.env.render())
        except Exception as error:
            raise EnvError(f"{self.name} cannot be drawn: {errors.in_a_line(error)}") from error
        if picture.ndim != 3 or picture.dtype != np.uint8:
            what = f"an array {list(picture.shape)} of {picture.dtype}"
            raise EnvError(f"{self.name} cannot be drawn: render gave {what}, no bytes [H, W, 3]")
        return picture
