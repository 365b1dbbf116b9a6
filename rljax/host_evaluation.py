"""Full episodes in environments that Python steps, with a bounded number of them open."""

import contextlib
from collections.abc import Callable, Iterator
from functools import lru_cache

import jax
import numpy as np

from rljax import networks, rollout
from rljax.config import Config
from rljax.envs import host_envs
from rljax.envs.host_envs import HostEnv
from rljax.envs.vectorized import SyncEnvs
from rljax.networks import distributions
from rljax.types import TrainState
from rljax.utils import forkserver, pytrees
from rljax.utils.forkserver import EnvError, RefusedError

Watch = Callable[[int, int, int], None]
"""Called with (episodes that have ended, all episodes, steps so far), as `evaluate` says."""


def run(
    config: Config,
    env: HostEnv,
    learners: TrainState,
    keys: jax.Array,
    num_episodes: int,
    greedy: bool,
    max_steps: int,
    watch: Watch,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`evaluation.evaluate` for environments that Python steps: one learner after another, in this
    process, with at most `env.num_envs` environments open. Returns the fields of an `Evaluation`.

    An environment whose episode has ended begins the next of the N, and idles when there is none
    left. Each episode has a seed of its own, for its environment, and a key of its own, for its
    actions: its random numbers do not depend on the number of environments. (Its actions can, where
    batches of another size round differently.) Config and learners hold only what a policy needs,
    so that runs share compiled programs.
    """
    total, steps, results = len(keys) * num_episodes, 0, []
    watch(0, total, 0)
    env = env._replace(num_envs=min(env.num_envs, num_episodes))
    before = forkserver.children()
    with forkserver.children_ended(before), contextlib.closing(SyncEnvs(env)) as opened:
        try:
            host_envs.check_made(env.spec, opened.get_attr("error"))
        except RefusedError as error:
            many = f"{env.num_envs} environment{'s' * (env.num_envs > 1)}"
            raise EnvError(f"in an evaluation in {many}: {error}") from error
        for index, key in enumerate(keys):
            learner = jax.tree.map(lambda x, i=index: x[i], learners)
            act = _policy(config, env.spec, learner, greedy)
            episodes = _Episodes(env.spec, opened.envs, key, num_episodes, max_steps)
            for stepped in episodes.run(act):
                steps += stepped
                watch(index * num_episodes + episodes.ended, total, steps)
            results.append((episodes.returns, episodes.lengths, episodes.finished))
    returns, lengths, finished = map(np.stack, zip(*results))
    return returns.astype(np.float32), lengths, finished


class _Episodes:
    """The episodes of one learner."""

    def __init__(self, spec, guarded, key, num_episodes, max_steps):
        key_action, key_reset = jax.random.split(key)
        self.spec, self.guarded, self.max_steps = spec, guarded, max_steps
        self.seeds = host_envs.seeds(key_reset, num_episodes)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key_action, np.arange(num_episodes))
        self.keys = np.asarray(jax.random.key_data(keys))
        self.returns = np.zeros(num_episodes)
        self.lengths = np.zeros(num_episodes, np.int32)
        self.finished = np.zeros(num_episodes, bool)
        self.begun = self.ended = 0
        # The episode of every environment, and what its next action depends on. An idle one stays
        # in the batch, so that the batch keeps its shape.
        self.episode = np.zeros(len(guarded), int)
        self.obs = np.zeros((len(guarded), *spec.obs_shape), np.float32)
        self.mask = None
        if spec.has_mask:
            self.mask = np.ones((len(guarded), *spec.action_space.mask_shape), bool)

    def run(self, act: Callable) -> Iterator[int]:
        """Runs all; yields after each step the number of environments that were stepped."""
        running = [i for i in range(len(self.guarded)) if self._begin(i)]
        while running:
            lengths = self.lengths[self.episode].astype(np.uint32)
            actions = act(self.obs, self.mask, self.keys[self.episode], lengths)
            host_envs.check_finite(host_envs.ACTION_NOT_FINITE, actions, self._at)
            stepped = len(running)
            running = [i for i in running if self._step(i, actions[i])]
            host_envs.check_finite(host_envs.OBSERVATION_NOT_FINITE, self.obs, self._at)
            yield stepped

    def _begin(self, i):
        """Begins the next episode in an environment; False if there is none left."""
        if self.begun == len(self.seeds):
            return False
        self.episode[i], self.begun = self.begun, self.begun + 1
        self._keep(i, *self.guarded[i].reset(seed=int(self.seeds[self.episode[i]])))
        return True

    def _step(self, i, action):
        """Whether the environment has another step, in this episode or the next."""
        episode = self.episode[i]
        obs, reward, terminated, truncated, info = self.guarded[i].step(action)
        self.lengths[episode] += 1
        self._keep(i, obs, info)
        self.returns[episode] += np.float32(reward)
        self.finished[episode] = terminated or truncated
        if not self.finished[episode] and self.lengths[episode] < self.max_steps:
            return True
        self.ended += 1
        return self._begin(i)

    def _keep(self, i, obs, info):
        if error := info.get("error"):
            raise host_envs.failed(self._at(i), error)
        self.obs[i] = obs
        if "mask" in info:
            self.mask[i] = info["mask"]

    def _at(self, i):
        step = self.lengths[self.episode[i]]
        when = f"step {step:,}" if step else "the reset"
        where = f"environment {i} of {self.spec.name}"
        return f"in an evaluation: {where} at {when} of episode {self.episode[i] + 1}"


def _policy(config, spec, learner, greedy) -> Callable:
    """(obs, mask, keys, steps), each [B, ...] -> actions for the environments [B, ...], in NumPy.
    The learner is passed as one vector, which takes a fraction of the time."""
    leaves, tree = jax.tree.flatten(learner)
    kinds = tuple((x.shape, np.dtype(x.dtype)) for x in leaves)
    act, vector = _program(config, spec, tree, kinds, greedy), pytrees.pack(learner)
    return lambda *inputs: np.asarray(act(vector, *inputs))


@lru_cache(maxsize=8)
def _program(config, spec, tree, kinds, greedy):
    network = networks.make(config, spec)
    like = tree.unflatten([jax.ShapeDtypeStruct(*kind) for kind in kinds])

    def noise(key, step):
        key = jax.random.fold_in(jax.random.wrap_key_data(key), step)
        return distributions.noise(spec.action_space, key, ())

    @jax.jit
    def act(vector, obs, mask, keys, steps):
        learner = pytrees.unpack(vector, like)
        chance = None if greedy else jax.vmap(noise)(keys, steps)
        action = rollout.choose(network, learner, obs, mask, chance)
        return action.reshape(len(obs), *spec.action_space.shape)

    return act
