"""Whatever environments that Python steps are like, and whatever goes wrong in them: training has
what a plain loop has, or one of the known errors, which says where.

Most examples are stepped without a policy, which need not be compiled for them then.
"""

import itertools
import multiprocessing
import signal
from functools import partial

import jax
import numpy as np
import pytest
from generated_envs import DEADLY, Fault, Generated, choose, encoded, own, plans, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st

from rljax import a2c, a3c, envs, host_evaluation
from rljax.config import Config, WorkerConfig
from rljax.envs import host_envs
from rljax.types import TrainState
from rljax.utils.forkserver import EnvError, RefusedError

T, B = 9, 2
QUICK = dict(deadline=None, derandomize=True, database=None)


@pytest.fixture(autouse=True)
def bounded():
    """Nothing hangs, and no process is left. With handlers of its own, as the scripts have."""

    def stop(number, frame):
        raise KeyboardInterrupt("it hangs, or a user wants it to end")

    before = {number: signal.signal(number, stop) for number in (signal.SIGALRM, signal.SIGINT)}
    signal.alarm(170)
    yield
    signal.alarm(0)
    for number, handler in before.items():
        signal.signal(number, handler)
    assert not multiprocessing.active_children()


def builder(plan):
    return partial(Generated, plan, itertools.count())


def plain(plan, seed, choices):
    """(first observation and mask, then for each choice what `Step` should have, and the mask), by
    an environment without its fault."""
    env = Generated(plan._replace(fault=None))
    obs, info = env.reset(seed=seed)
    yield encoded(plan.observation_space, obs), mask_of(plan, info)
    for action in choices:
        obs, reward, terminated, truncated, info = env.step(own(plan.action_space, action))
        obs = final = encoded(plan.observation_space, obs)
        flags = bool(terminated), bool(truncated)
        if any(flags):
            obs, info = env.reset()
            obs = encoded(plan.observation_space, obs)
        yield obs, np.float32(reward), *flags, final, mask_of(plan, info)


def mask_of(plan, info):
    return rows_of(plan.action_space, info["action_mask"]) if plan.mask else None


def check_stepping(plan, vectorization):
    """A few steps of two environments; with actions that are drawn from those that are valid."""
    rng, steps, choices = np.random.default_rng(0), [], []
    try:
        processes = None if vectorization == "sync" else B
        made = envs.make(builder(plan), (), (), B, vectorization, env_processes=processes)
        with made.open() as running:
            obs, mask = running.reset([1, 2])
            steps.append((obs, mask))
            for _ in range(T):
                rows = [None] * B if mask is None else mask
                chosen = np.array([choose(plan.action_space, row, rng) for row in rows])
                step = running.step(chosen)
                mask = step.mask
                choices.append(chosen)
                steps.append(step)
    except (EnvError, ValueError, TypeError) as error:
        check_error(plan, error, vectorization)
    else:
        assert not is_reached(plan, vectorization)
    finally:
        assert not multiprocessing.active_children()
    for i in range(B):
        expected = plain(plan, i + 1, [chosen[i] for chosen in choices])
        for found, right in zip(steps, expected):
            for x, y in zip(found, right):
                assert (x is None) == (y is None)
                if x is not None:
                    np.testing.assert_array_equal(x[i], y)
                    assert x.dtype == np.asarray(y).dtype


def is_reached(plan, vectorization):
    """Whether so few steps come to the fault."""
    fault = plan.fault
    if fault is None or fault.where == "close":
        return False
    if fault.where == "constructor":
        # In processes, each goes on from the count of the one that was looked at.
        return fault.when <= (B if vectorization == "sync" else 1)
    if fault.where == "step":
        return True
    if fault.number == 0:
        return fault.when == 0
    return fault.when * plan.length <= T


def check_error(plan, error, vectorization):
    assert is_reached(plan, vectorization), error
    fault, text = plan.fault, str(error)
    assert text.count("Traceback (most recent call last)") == ("\n" in text), text
    is_answer = fault.what not in ("exit", "interrupt", "nothing said")
    assert not is_answer or "\n" not in text or "complex" in fault.what, text
    if fault.where == "constructor":
        kind = ValueError if fault.when == 0 else RefusedError
        where = "" if fault.when == 0 else "environment "
    elif fault.number == 0:
        kind, where = (ValueError if is_answer else EnvError), "env = "
    else:
        at = fault.when if fault.where == "step" else fault.when * plan.length
        where = f"environment {fault.number - 1} of "
        kind, where = EnvError, where
        assert (f" at step {at}:" if at else " at its first reset:") in text, text
    assert isinstance(error, kind), repr(error)
    assert where in text, text


def check_evaluating(plan, num_envs):
    """Four episodes, with a policy that is drawn from what is valid."""
    rng, taken = np.random.default_rng(0), []

    def policy(*_):
        def act(obs, mask, keys, lengths, reward, begins):
            rows = [None] * len(obs) if mask is None else mask
            taken.append(np.array([choose(plan.action_space, row, rng) for row in rows]))
            return taken[-1]

        return act

    learner = TrainState(np.zeros(1), (), np.zeros(1), None, None)
    fault = plan.fault
    reached = fault and fault.where == "constructor" and fault.when <= min(num_envs, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_evaluation, "policy", policy)
        patch.setattr(host_envs, "seeds", lambda key, number: np.arange(1, number + 1))
        try:
            env = envs.make(builder(plan), num_envs=num_envs)
            key = jax.random.split(jax.random.key(0), 1)
            returns, lengths, finished, _ = host_evaluation.run(
                Config(), env, learner, key, 4, True, 100, lambda *now: None
            )
        except (EnvError, ValueError, TypeError) as error:
            is_known = isinstance(error, EnvError) or "env = " in str(error)
            text = str(error) if is_known else repr(error)
        else:
            text = ""
    if text:
        assert is_known, text
        assert fault is not None, text
        assert fault.where != "close", text
        assert text.count("Traceback (most recent call last)") == ("\n" in text), text
        return
    assert not reached
    assert finished.all()
    assert lengths.tolist() == [[plan.length] * 4]
    assert np.isfinite(returns).all()
    if num_envs == 1:
        choices = iter(taken)
        for episode in range(4):
            steps = plain(plan, episode + 1, [next(choices)[0] for _ in range(plan.length)])
            rewards = [step[1] for step in list(steps)[1:]]
            assert returns[0, episode] == np.float32(np.sum(rewards, dtype=float))


def check_training(plan, train, errors):
    """Two updates of two environments; `train` gives (learner, episodes that ended)."""
    config = Config(
        env=builder(plan),
        total_timesteps=16,
        num_envs=B,
        num_steps=4,
        hidden_sizes=(3,),
        network="mlp",
    )
    try:
        state, metrics = train(config)
    except (*errors, EnvError, ValueError, TypeError) as error:
        is_known = isinstance(error, errors) or "env = " in str(error) or "environ" in str(error)
        text = str(error) if is_known else repr(error)
    else:
        text = ""
    fault = plan.fault
    if text:
        assert is_known, text
        assert fault is not None, text
        assert fault.where != "close", text
        assert "Generated" in text or "partial" in text or "process" in text, text
        return
    if fault and fault.where in ("step", "reset"):
        assert fault.when * (1 if fault.where == "step" else plan.length) > 8
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.learner.params))
    assert metrics.episodes.sum() == B * (8 // plan.length)


def in_all_of_them(plan):
    """The fault in every environment, also where seeds cannot be chosen."""
    return plan._replace(fault=plan.fault and plan.fault._replace(number=None))


def train_a3c(config):
    workers = WorkerConfig(num_workers=1, envs_per_worker=B, max_worker_restarts=0)
    return a3c.train(config, workers, jax.random.key(0))


ANY = plans(faulty=False) | plans(faulty=True)
ignore = pytest.mark.filterwarnings("ignore")  # of environments that cannot be closed, and spaces


@ignore
@settings(max_examples=30, **QUICK)
@given(plan=plans(faulty=False))
def test_stepping_is_what_a_plain_loop_does(plan):
    check_stepping(plan, "sync")


@ignore
@settings(max_examples=40, **QUICK)
@given(plan=plans(faulty=True))
def test_what_goes_wrong_is_told(plan):
    check_stepping(plan, "sync")


@ignore
@settings(max_examples=4, **QUICK)
@given(plan=ANY)
def test_in_processes(plan):
    check_stepping(plan, "async")


@ignore
@settings(max_examples=25, **QUICK)
@given(plan=ANY, num_envs=st.integers(1, 5))
def test_in_evaluations(plan, num_envs):
    check_evaluating(plan, num_envs)


@ignore
@pytest.mark.slow
@settings(max_examples=600, **QUICK)
@given(plan=ANY, num_envs=st.integers(1, 5))
def test_many_more(plan, num_envs):
    check_stepping(plan, "sync")
    check_evaluating(plan, num_envs)


@ignore
@pytest.mark.slow
@settings(max_examples=40, **QUICK)
@given(plan=ANY, deadly=st.sampled_from([None, *sorted(DEADLY)]), when=st.integers(1, 5))
def test_many_more_in_processes(plan, deadly, when):
    if deadly:
        plan = plan._replace(fault=Fault("step", deadly, when, 1))
    check_stepping(plan, "async")


@ignore
@pytest.mark.slow
@settings(max_examples=8, **QUICK)
@given(plan=ANY)
def test_training(plan):
    check_training(in_all_of_them(plan), lambda config: a2c.train(config, jax.random.key(0)), ())


@ignore
@pytest.mark.slow
@settings(max_examples=5, **QUICK)
@given(plan=ANY)
def test_training_in_workers(plan):
    check_training(in_all_of_them(plan), train_a3c, (a3c.WorkerError,))
