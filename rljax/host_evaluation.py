"""Full episodes in environments that Python steps, with a bounded number of them open."""

import contextlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from rljax import networks, rollout
from rljax.config import Config
from rljax.envs import host_envs, interface
from rljax.envs.guarded import Failed
from rljax.envs.host_envs import HostEnv
from rljax.envs.interface import EnvSpec
from rljax.envs.vectorized import SyncEnvs
from rljax.networks import cores, distributions
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
) -> tuple[np.ndarray | None, ...]:
    """`evaluation.evaluate` for environments that Python steps: one learner after another, in this
    process, with at most `env.num_envs` environments open. Returns the fields of an `Evaluation`.

    An environment whose episode has ended begins the next of the N, or of its own share of them
    where environments differ by their index, and idles when there is none left. Each episode has a
    seed of its own, for its environment, and a key of its own, for its actions: its random numbers
    do not depend on the number of environments. (Its actions can, where batches of another size
    round differently.) Config and learners hold only what a policy needs, so that runs share
    compiled programs.
    """
    total, steps, results = len(keys) * num_episodes, 0, []
    watch(0, total, 0)
    env = env._replace(num_envs=min(env.num_envs, num_episodes))
    before = forkserver.children()
    with forkserver.children_ended(before), contextlib.closing(SyncEnvs(env)) as opened:
        try:
            host_envs.check_made(env.spec, opened.errors)
        except RefusedError as error:
            many = f"{env.num_envs} environment{'s' * (env.num_envs > 1)}"
            raise EnvError(f"in an evaluation in {many}: {error}") from error
        for index, key in enumerate(keys):
            learner = jax.tree.map(lambda x, i=index: x[i], learners)
            act = policy(config, env.spec, learner, greedy)
            episodes = Episodes(env, opened.envs, key, num_episodes, max_steps)
            for stepped in episodes.run(act):
                steps += stepped
                watch(index * num_episodes + episodes.ended, total, steps)
            fields = episodes.returns, episodes.lengths, episodes.finished, episodes.info
            results.append(fields)
    returns, lengths, finished, info = map(np.stack, zip(*results))
    return returns.astype(np.float32), lengths, finished, info if env.log_info else None


class Episodes:
    """The episodes of one learner."""

    def __init__(self, env, guarded, key, num_episodes, max_steps):
        key_action, key_reset = jax.random.split(key)
        spec = env.spec
        self.spec, self.guarded, self.max_steps = spec, guarded, max_steps
        self.seeds = host_envs.seeds(key_reset, num_episodes)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key_action, np.arange(num_episodes))
        self.keys = np.asarray(jax.random.key_data(keys))
        self.returns = np.zeros(num_episodes)
        self.lengths = np.zeros(num_episodes, np.int32)
        self.finished = np.zeros(num_episodes, bool)
        self.info = np.zeros((num_episodes, len(env.log_info)), np.float32)
        # What each environment has to begin: where all are alike, all from one row.
        number, every = len(guarded), range(num_episodes)
        shares = [iter(every[i::number]) for i in range(number)]
        self.left = shares if env.differ else [iter(every)] * number
        self.ended = 0
        # The episode of every environment, and what its next action depends on. An idle one stays
        # in the batch, so that the batch keeps its shape.
        self.episode = np.zeros(len(guarded), int)
        self.obs = spec.empty_obs(len(guarded))
        # Of an environment's last step; what else is carried is the policy's to keep.
        self.reward, self.fresh = np.zeros(len(guarded), np.float32), np.ones(len(guarded), bool)
        self.mask = None
        if spec.has_mask:
            self.mask = np.ones((len(guarded), *spec.action_space.mask_shape), bool)

    def run(self, act: Callable) -> Iterator[int]:
        """Runs all; yields after each step the number of environments that were stepped."""
        running = [i for i in range(len(self.guarded)) if self._begin(i)]
        while running:
            lengths = self.lengths[self.episode].astype(np.uint32)
            before = self.reward, self.fresh.copy()
            actions = act(self.obs, self.mask, self.keys[self.episode], lengths, *before)
            self.fresh[:] = False
            host_envs.check_finite(host_envs.ACTION_NOT_FINITE, actions, self._at)
            stepped = len(running)
            running = [i for i in running if self._step(i, actions[i])]
            host_envs.check_finite(host_envs.OBSERVATION_NOT_FINITE, self.obs, self._at)
            yield stepped

    def _begin(self, i):
        """Begins the next episode in an environment; False if there is none left."""
        episode = next(self.left[i], None)
        if episode is None:
            return False
        self.episode[i], self.fresh[i] = episode, True
        self._keep(i, *self._ask(i, self.guarded[i].reset, int(self.seeds[self.episode[i]])))
        return True

    def _step(self, i, action):
        """Whether the environment has another step, in this episode or the next."""
        episode = self.episode[i]
        self.lengths[episode] += 1
        answer = self._ask(i, self.guarded[i].step, action)
        self._keep(i, answer.obs, answer.mask)
        self.returns[episode] += np.float32(interface.score(answer))
        self.reward[i] = answer.reward
        # As in training, also where the episode goes on.
        self.fresh[i] = answer.terminated or answer.truncated
        self.finished[episode] = interface.over(answer)
        if answer.info is not None:
            self.info[episode] = answer.info
        if not self.finished[episode] and self.lengths[episode] < self.max_steps:
            return True
        self.ended += 1
        return self._begin(i)

    def _ask(self, i, function, given):
        try:
            return function(given)
        except Failed as failed:
            raise host_envs.failed(self._at(i), failed.args[1]) from None

    def _keep(self, i, obs, mask):
        self.obs[i] = obs
        if mask is not None:
            self.mask[i] = mask

    def _at(self, i):
        step = self.lengths[self.episode[i]]
        when = f"step {step:,}" if step else "the reset"
        where = f"environment {i} of {self.spec.name}"
        return f"in an evaluation: {where} at {when} of episode {self.episode[i] + 1}"


def policy(
    config: Config,
    spec: EnvSpec,
    learner: TrainState,
    greedy: bool,
    before: Callable[[Any, Any, Any], None] | None = None,
) -> Callable:
    """(obs, mask, keys, steps, reward of the step before, whether an episode begins), each
    [B, ...] -> actions for the environments [B, ...], in NumPy. The learner is passed as one
    vector, which takes a fraction of the time.

    Args:
        before: called before each action with observations, masks and what is carried to it.
    """
    leaves, tree = jax.tree.flatten(learner)
    kinds = tuple((x.shape, np.dtype(x.dtype)) for x in leaves)
    network, act = _program(config, spec, tree, kinds, greedy)
    vector = pytrees.pack(learner)
    carry = None

    def act_on(obs, mask, keys, steps, reward, fresh):
        nonlocal carry
        if carry is None:
            carry = networks.initial_carry(network, len(obs))
        carried = (carry, reward, fresh) if carry else ()
        if before:
            before(obs, mask, cores.resumed(network, *carried) if carried else ())
        action, carry = act(vector, obs, mask, keys, steps, *carried)
        return np.asarray(action)

    return act_on


@lru_cache(maxsize=8)
def _program(config, spec, tree, kinds, greedy):
    network = networks.make(config, spec)
    like = tree.unflatten([jax.ShapeDtypeStruct(*kind) for kind in kinds])

    def noise(key, step):
        key = jax.random.fold_in(jax.random.wrap_key_data(key), step)
        return distributions.noise(spec.action_space, key, ())

    @jax.jit
    def act(vector, obs, mask, keys, steps, *carried):
        learner = pytrees.unpack(vector, like)
        chance = None if greedy else jax.vmap(noise)(keys, steps)
        carry = cores.resumed(network, *carried) if carried else ()
        action, carry = rollout.choose(network, learner, obs, mask, chance, carry)
        return action.reshape(len(obs), *spec.action_space.shape), carry

    return network, act
