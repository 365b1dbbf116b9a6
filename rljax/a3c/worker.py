"""What a worker process does: pull, act, compute the gradient, push; for ever."""

import contextlib
import os
import pickle
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

import jax
import jax.numpy as jnp
import numpy as np

from rljax import learner, networks, rollout
from rljax.a3c import messages
from rljax.a3c.transport import Queue, SharedParameters, Stopped
from rljax.envs import host_envs
from rljax.envs.host_envs import HostEnv
from rljax.envs.interface import Step
from rljax.networks import distributions
from rljax.utils import errors, forkserver, preload, pytrees


def run(
    index: int, queue: Queue, turns: Connection, parameters: SharedParameters, job: bytes
) -> None:
    """Works on a packed `messages.Job` until the order to stop, which is the end of `turns`, or
    until something fails; a failure is sent. NumPy's and Python's global generators are seeded from
    the worker's key, as it is at its start."""
    os.nice(5)  # the holder goes first: all workers wait for it
    running = None
    try:
        if preload.threads(os.getppid()) > 1:
            raise RuntimeError("forked from a process of several threads")
        job = pickle.loads(job)
        forkserver.take_over(job.settings)
        forkserver.seed_generators(*job.actor.key)
        try:
            env, network = rollout.make_env_and_network(job.config)
            is_host = isinstance(env, HostEnv)
            running = env.open() if is_host else None
        except (ValueError, TypeError) as error:
            _send(queue, messages.REFUSED, errors.text_of(error))
            return
        step = _host_step(job, env, network, running) if is_host else _jax_step(job, env, network)
        _work(index, queue, turns, parameters, job, step)
    except Stopped:
        pass
    except forkserver.EnvError as error:
        _send(queue, messages.FAILED, str(error))
    except BaseException:  # sys.exit is a failure too: it would be started again and again
        _send(queue, messages.FAILED, traceback.format_exc())
    finally:
        if running:
            running.close()


def _work(index, queue, turns, parameters, job, step):
    vector = np.empty(parameters.size, np.float32)
    record = np.zeros((), job.layout.record)
    seconds = dict.fromkeys(messages.PHASES, 0.0)
    record["worker"] = index
    content = memoryview(record.reshape(1).view(np.uint8))
    clock = time.perf_counter
    while True:
        begun = clock()
        if job.lockstep:
            _wait_for_turn(turns)
        elif turns.poll(0):  # nothing is ever sent but the end
            return
        waited = clock()
        record["version"] = parameters.read(vector)
        pulled = clock()
        gradients, actor, spent = step(vector)
        computed = clock()
        record["gradients"], record["actor"] = np.asarray(gradients), np.asarray(actor)
        # What a push takes is known after it: it goes with the next message.
        record["seconds"] = [seconds[name] for name in messages.PHASES]
        waited_for_room = queue.put(messages.GRADIENT, content)
        seconds = {
            "wait": waited - begun + waited_for_room,
            "pull": pulled - waited,
            **spent,
            "gradient": computed - pulled - sum(spent.values()),
            "push": clock() - computed - waited_for_room,
        }


def _jax_step(job, env, network) -> Callable:
    """A rollout and its gradient in one jitted call, compiled here, before parameters are pulled:
    parameters -> (BatchGradients as a vector, packed actor, seconds of acting by phase)."""
    config, size = job.config, pytrees.size(job.layout.published)
    floats, config_of = pytrees.settings(config)
    floats = jnp.asarray(floats)
    like = jax.eval_shape(lambda key: rollout.init(env, config.num_envs, key), jax.random.key(0))

    @jax.jit
    def work(floats, vector, actor):
        config = config_of(floats)
        state = messages.learner_of(vector, job.layout.published)
        actor = pytrees.typed(pytrees.unpack(actor, job.layout.actor), like)
        actor, batch = rollout.collect(config, env, network, state, actor)
        episodes, given = learner.compute_gradients(config, network, state, actor.episodes, batch)
        actor = pytrees.plain(actor._replace(episodes=episodes))
        return pytrees.ravel(given), pytrees.pack(actor)

    held = pytrees.pack(job.actor)
    jax.block_until_ready(work(floats, np.zeros(size, np.float32), held))  # compiles

    def step(vector):
        nonlocal held
        gradients, held = work(floats, vector, held)
        return gradients, held, {"environment": 0.0, "policy": 0.0}

    return step


def _host_step(job, env, network, running) -> Callable:
    """As `_jax_step`: a loop in Python around a jitted policy, then one jitted gradient. Parameters
    stay one vector, and so do the key and the episodes: a jitted call takes as long as its arrays
    are many."""
    config, layout, num_envs = job.config, job.layout, job.config.num_envs
    floats, config_of = pytrees.settings(config)
    network = networks.Raveled(network, layout.published.params)
    published = layout.published._replace(params=layout.gradients.gradients)
    like = jax.eval_shape(lambda: (job.actor.key, rollout.no_episodes(num_envs)))

    on_device = jax.jit(lambda vector: vector)  # takes a quarter of the time of `device_put`

    def begin_rollout(key, episodes):
        """(key and episodes as a vector, noise of a rollout)."""
        key, key_noise = jax.random.split(jax.random.wrap_key_data(key))
        shape = (config.num_steps, num_envs)
        noise = distributions.noise(env.spec.action_space, key_noise, shape)
        return pytrees.pack((jax.random.key_data(key), episodes)), noise

    @jax.jit
    def act(vector, noise, t, obs, mask):
        return rollout.act(network, messages.learner_of(vector, published), obs, mask, noise[t])

    def compute_gradients(floats, vector, episodes, batch):
        state, config = messages.learner_of(vector, published), config_of(floats)
        return learner.compute_gradients(config, network, state, episodes, batch)

    # Two programs take half the time of one: XLA on a CPU computes what is independent in another
    # thread, and to hand over such short work takes longer than the work.

    @jax.jit
    def of_network(floats, vector, batch):
        """What depends on the network: the gradient, the losses and the norm, as one vector."""
        _, given = compute_gradients(floats, vector, rollout.no_episodes(num_envs), batch)
        return pytrees.ravel((given.gradients, given.metrics.losses, given.metrics.grad_norm))

    @jax.jit
    def of_batch(floats, held, batch):
        """What does not, as one vector; and as `begin_rollout`, for the next rollout."""
        key, episodes = pytrees.unpack(held, like)
        nothing = jnp.zeros(pytrees.size(published))
        episodes, given = compute_gradients(floats, nothing, episodes, batch)
        episodic = given.metrics._replace(losses=(), grad_norm=())
        return pytrees.ravel((given.moments, episodic)), *begin_rollout(key, episodes)

    # As arrays of JAX's they are passed in a fraction of the time.
    floats, *numbers = map(jnp.asarray, (floats, *np.arange(config.num_steps, dtype=np.int32)))
    key, key_reset = jax.random.split(jax.random.wrap_key_data(job.actor.key))
    obs, mask = running.reset(host_envs.seeds(key_reset, num_envs))
    episodes = rollout.no_episodes(num_envs)
    held, noise = jax.jit(begin_rollout)(jax.random.key_data(key), episodes)
    clock = time.perf_counter

    def step(vector, env_step=running.step):
        nonlocal held, noise, obs, mask
        vector, spent = on_device(vector), {"environment": 0.0, "policy": 0.0}

        def timed_act(t, obs, mask):
            begun = clock()
            actions = rollout.on_host(env, act(vector, noise, numbers[t], obs, mask))
            spent["policy"] += clock() - begun
            return actions

        def timed_step(actions):
            begun = clock()
            answer = env_step(actions)
            spent["environment"] += clock() - begun
            return answer

        obs, mask, batch = rollout.loop(timed_act, timed_step, obs, mask, config.num_steps)
        key = np.asarray(held)[: len(job.actor.key)]
        given = np.asarray(of_network(floats, vector, batch))
        others, held, noise = of_batch(floats, held, batch)
        size = pytrees.size(layout.gradients.gradients)
        return np.concatenate([given[:size], others, given[size:]]), key, spent

    fresh, no = (held, noise, obs, mask), np.zeros(num_envs, bool)
    same = Step(obs, np.zeros(num_envs, np.float32), no, no, obs, mask)
    zeros = np.zeros(pytrees.size(layout.published), np.float32)
    step(zeros, lambda actions: same)  # compiles
    held, noise, obs, mask = fresh
    return step


def _wait_for_turn(turns):
    try:
        turns.recv_bytes()
    except EOFError:
        raise Stopped from None


def _send(queue, kind, text):
    with contextlib.suppress(Stopped):
        queue.put(kind, text.encode(errors="replace")[-messages.LONGEST_TEXT :])
