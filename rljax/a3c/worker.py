"""What a worker process does: pull, act, compute the gradient, push; for ever."""

import contextlib
import os
import time
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing import parent_process

import jax
import jax.numpy as jnp
import numpy as np

from rljax import learner, networks, rollout
from rljax.a3c import messages
from rljax.a3c.network import Link, MappedParameters
from rljax.a3c.transport import Queue, SharedParameters, Stopped
from rljax.envs import host_envs, jax_envs
from rljax.envs.host_envs import HostEnv
from rljax.envs.interface import Step
from rljax.networks import distributions
from rljax.utils import errors, forkserver, preload, pytrees
from rljax.utils.compilation import jit_in_order


def run(
    index: int,
    queue: Queue | Link,
    parameters: SharedParameters | MappedParameters,
    job: bytes,
) -> None:
    """Works on a packed `messages.Job` until the order to stop, or until something fails; a failure
    is sent. NumPy's and Python's global generators are seeded from the worker's key, as it is at
    its start."""
    os.nice(5)  # the holder goes first: all workers wait for it
    running = None
    try:
        if parent_process() and preload.threads(os.getppid()) > 1:
            raise RuntimeError("forked from a process of several threads")
        job = jax_envs.unpickled(job)
        forkserver.take_over(job.settings)
        forkserver.seed_generators(*job.actor.key)
        try:
            env, network = rollout.make_env_and_network(job.config)
            is_host = isinstance(env, HostEnv)
            first = index * job.config.num_envs
            running = env._replace(first=first).open() if is_host else None
        except (ValueError, TypeError) as error:
            _send(queue, messages.REFUSED, errors.text_of(error))
            return
        step = _host_step(job, env, network, running) if is_host else _jax_step(job, env, network)
        _work(index, queue, parameters, job, step)
    except Stopped:
        pass
    except forkserver.EnvError as error:
        _send(queue, messages.FAILED, str(error))
    except BaseException:  # sys.exit is a failure too: it would be started again and again
        _send(queue, messages.FAILED, traceback.format_exc())
    finally:
        if running:
            running.close()


def _work(index, queue, parameters, job, step):
    vector = np.empty(parameters.size, np.float32)
    record = np.zeros((), job.layout.record)
    seconds = dict.fromkeys(messages.PHASES, 0.0)
    record["worker"] = index
    content = memoryview(record.reshape(1).view(np.uint8))
    numbers = messages.numbers(content, job.layout)
    clock = time.perf_counter
    while True:
        begun = clock()
        if job.lockstep:
            queue.take_grant()  # its turn
        elif queue.is_stopped():
            return
        waited = clock()
        record["version"] = parameters.read(vector)
        record["pulled"] = pulled = clock()
        numbers[:], record["actor"], spent = step(vector)
        computed = clock()
        # What a push takes is known after it: it goes with the next message.
        record["seconds"] = [seconds[name] for name in messages.PHASES]
        pushing = clock()
        if not job.lockstep:
            queue.take_grant()  # the holder has begun with the gradient before
        waited_for_room = clock() - pushing + queue.put(messages.GRADIENT, content)
        record["pushed"] = pushing + waited_for_room  # the holder may take it while this one sleeps
        seconds = {
            "wait": waited - begun + waited_for_room,
            "pull": pulled - waited,
            **spent,
            "gradient": computed - pulled - sum(spent.values()),
            "push": clock() - computed - waited_for_room,
        }


def _jax_step(job, env, network) -> Callable:
    """A rollout and its gradient in one jitted call, compiled here, before parameters are pulled:
    parameters -> (`messages.numbers`, packed actor, seconds of acting by phase)."""
    config, size = job.config, pytrees.size(job.layout.published)
    floats, config_of = pytrees.settings(config)
    floats = jnp.asarray(floats)
    begin = partial(rollout.init, env, network, config.num_envs)
    like = jax.eval_shape(begin, jax.random.key(0))

    @jax.jit
    def work(floats, vector, actor):
        config = config_of(floats)
        state = messages.learner_of(vector, job.layout.published)
        actor = pytrees.typed(pytrees.unpack(actor, job.layout.actor), like)
        actor, batch = rollout.collect(config, env, network, state, actor)
        actor, given = learner.compute_gradients(config, network, state, actor, batch)
        return pytrees.ravel(given), pytrees.pack(pytrees.plain(actor))

    held = pytrees.pack(job.actor)
    jax.block_until_ready(work(floats, np.zeros(size, np.float32), held))  # compiles

    def step(vector):
        nonlocal held
        given, held = work(floats, vector, held)
        return np.asarray(given), np.asarray(held), {"environment": 0.0, "policy": 0.0}

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

    @jit_in_order
    def act(vector, noise, t, obs, mask, first, before):
        state = messages.learner_of(vector, published)
        return rollout.act(network, state, obs, mask, noise, t, first, before)[:2]

    @jit_in_order
    def work(floats, vector, held, batch, carry):
        """(`messages.numbers`, the carry, and as `begin_rollout`, for the next rollout)."""
        state, config = messages.learner_of(vector, published), config_of(floats)
        key, episodes = pytrees.unpack(held, like)
        actor = rollout.unopened(())._replace(episodes=episodes, carry=carry)
        actor, given = learner.compute_gradients(config, network, state, actor, batch)
        return pytrees.ravel(given), actor.carry, *begin_rollout(key, actor.episodes)

    # As arrays of JAX's they are passed in a fraction of the time.
    floats, *numbers = map(jnp.asarray, (floats, *np.arange(config.num_steps, dtype=np.int32)))
    key, key_reset = jax.random.split(jax.random.wrap_key_data(job.actor.key))
    obs, mask = running.reset(host_envs.seeds(key_reset, num_envs))
    episodes = rollout.no_episodes(num_envs)
    held, noise = jax.jit(begin_rollout)(jax.random.key_data(key), episodes)
    first = jax.tree.map(jnp.asarray, networks.initial_carry(network, num_envs))
    clock = time.perf_counter

    def step(vector, env_step=running.step):
        nonlocal held, noise, obs, mask, first
        vector, spent = on_device(vector), {"environment": 0.0, "policy": 0.0}

        def timed_act(t, obs, mask, before):
            begun = clock()
            actions, carry = act(vector, noise, numbers[t], obs, mask, first, before)
            actions = rollout.on_host(env, actions)
            spent["policy"] += clock() - begun
            return actions, carry

        def timed_step(actions):
            begun = clock()
            answer = env_step(actions)
            spent["environment"] += clock() - begun
            return answer

        obs, mask, batch = rollout.loop(timed_act, timed_step, obs, mask, config.num_steps, first)
        key = np.asarray(held)[: len(job.actor.key)]
        given, first, held, noise = work(floats, vector, held, batch, first)
        return np.asarray(given), key, spent

    fresh, no = (held, noise, obs, mask, first), np.zeros(num_envs, bool)
    zero = np.zeros(num_envs, np.float32)
    more = dict(score=zero if env.spec.has_score else None, over=no if env.spec.has_over else None)
    same = Step(obs, zero, no, no, obs, mask, running.no_info, **more)
    zeros = np.zeros(pytrees.size(layout.published), np.float32)
    step(zeros, lambda actions: same)  # compiles
    held, noise, obs, mask, first = fresh
    return step


def _send(queue, kind, text):
    with contextlib.suppress(Stopped):
        queue.put(kind, text.encode(errors="replace")[-messages.LONGEST_TEXT :])
