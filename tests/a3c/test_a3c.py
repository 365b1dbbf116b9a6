"""A3C's parts, each alone in this process: messages, the holder. Transport is beside."""

import dataclasses
import multiprocessing
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rljax import optimizers
from rljax.a3c import counts as counts_module
from rljax.a3c import holder, messages, supervisor, training, transport, worker_pool
from rljax.config import Config, WorkerConfig
from rljax.presets import base
from rljax.types import BatchGradients, BatchMetrics, BatchMoments, Moments
from rljax.utils import pytrees

CONFIG = Config(
    env="probes:RewardByAction",
    total_timesteps=400,
    num_envs=2,
    num_steps=2,
    hidden_sizes=(4,),
    optimizer="rmsprop_a3c",
    loss_reduction="sum",
)
WORKERS = WorkerConfig(num_workers=2, envs_per_worker=2)


INIT = jax.jit(training.init, static_argnums=1)


@pytest.fixture(scope="module")
def state():
    return INIT(CONFIG, WORKERS, jax.random.key(0))


@pytest.fixture(scope="module")
def layout():
    return messages.layout(CONFIG)


def new_holder(state, layout, workers=WORKERS, config=CONFIG):
    return holder.ParameterHolder(config, workers, layout, state)


LOSSES = ("loss", "policy_loss", "value_loss", "entropy", "explained_variance")
NOTHING = BatchMoments(None, None)


def batch_metrics(number=0.0):
    """Each metric another multiple of a number, and 1, 2, 3, ... beside it."""
    losses = {name: number + i for i, name in enumerate(LOSSES, 4)}
    return BatchMetrics(number + 1, number + 2, number + 3, losses, number + 9)


def record_of(layout, gradient, worker=0, version=0, moments=NOTHING, metrics=None):
    record = np.zeros((), layout.record)
    record["worker"], record["version"] = worker, version
    given = BatchGradients(gradient, moments, batch_metrics() if metrics is None else metrics)
    for name, part in given._asdict().items():
        record[name] = pytrees.host_vector(part) if jax.tree.leaves(part) else ()
    return record


def message(record):
    return record.tobytes()


def gradients(layout, number, scale=1.0):
    size = pytrees.size(layout.published.params)
    return scale * np.random.default_rng(0).normal(size=(number, size)).astype(np.float32)


# Messages


def test_a_vector_becomes_the_pytree_that_it_was(state, layout):
    vector = pytrees.ravel(state.learner.params)
    again = pytrees.unravel(vector, layout.published.params)
    assert jax.tree.structure(again) == jax.tree.structure(state.learner.params)
    for here, there in zip(jax.tree.leaves(again), jax.tree.leaves(state.learner.params)):
        np.testing.assert_array_equal(here, there)


def test_a_record_holds_an_actor(state, layout):
    actor = jax.tree.map(lambda x: x[1], state.actors)
    record = np.zeros((), layout.record)
    record["actor"] = pytrees.pack(actor)
    sent = np.frombuffer(message(record), layout.record)[0]["actor"]
    for vector in (sent, jnp.asarray(sent)):
        again = pytrees.unpack(vector, layout.actor)
        assert jax.tree.structure(again) == jax.tree.structure(actor)
        for here, there in zip(jax.tree.leaves(again), jax.tree.leaves(actor)):
            np.testing.assert_array_equal(here, there, strict=True)


def test_any_bits_are_packed():
    kinds = (bool, np.int8, np.uint8, np.int16, np.float16, np.int32, np.uint32, np.float32)
    rng = np.random.default_rng(0)
    tree = [rng.integers(-5, 5, (2, 3)).astype(kind) for kind in kinds]
    tree += [np.float32([np.nan, -0.0, np.inf]), jnp.asarray([1.5, -3], jnp.bfloat16)]
    tree = [np.asarray(x) for x in tree]
    again = pytrees.unpack(np.asarray(jax.jit(pytrees.pack)(tree)), tree)
    for here, there in zip(again, tree):
        assert here.dtype == there.dtype
        assert here.tobytes() == there.tobytes()


def test_random_keys_travel_as_raw_data():
    tree = {"key": jax.random.key(3), "x": jnp.arange(2)}
    raw = pytrees.plain(tree)
    assert raw["key"].dtype == np.uint32
    again = pytrees.typed(raw, tree)
    assert jax.random.uniform(again["key"]) == jax.random.uniform(tree["key"])


def test_workers_start_from_keys_of_their_own(state):
    keys = state.actors.key
    assert not np.array_equal(keys[0], keys[1])


# The holder


def test_gradients_are_applied_once_each_in_the_order_in_which_they_come(state, layout):
    """Against the optimiser itself on the pytree; the order matters to RMSProp."""
    held, pushed = new_holder(state, layout), gradients(layout, 10)
    for i, vector in enumerate(pushed):
        assert held.push(message(record_of(layout, vector, worker=i % 2, version=i)), i % 2)
        assert held.version == i + 1
    optimizer = optimizers.make(CONFIG)

    @jax.jit
    def step(params, opt_state, vector):
        tree = pytrees.unravel(vector, layout.published.params)
        updates, opt_state = optimizer.update(tree, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def expected(order):
        params = state.learner.params
        opt_state = jax.jit(optimizer.init)(params)
        for i in order:
            params, opt_state = step(params, opt_state, pushed[i])
        return pytrees.ravel(params)

    np.testing.assert_allclose(held.published(), expected(range(10)), rtol=1e-5, atol=1e-7)
    other = np.abs(held.published() - expected(reversed(range(10))))
    assert other.max() > 1e-4
    assert held.counts.applied == held.updates == 10
    assert held.counts.staleness[0] == 10


def test_the_holder_speaks_pytrees_too(state, layout):
    vector = gradients(layout, 1)[0]
    tree = pytrees.unravel(vector, layout.published.params)
    nothing = BatchMoments(None, None)
    one, other = new_holder(state, layout), new_holder(state, layout)
    assert one.apply(vector, nothing)
    assert other.apply(tree, nothing)
    np.testing.assert_array_equal(one.published(), other.published())
    np.testing.assert_array_equal(pytrees.ravel(one.state().params), one.published(), strict=False)
    with pytest.raises(ValueError, match=r"a gradient of shape \(3,\): must have"):
        one.apply(vector[:3], nothing)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(state, layout, value):
    held, pushed = new_holder(state, layout), gradients(layout, 2)
    held.push(message(record_of(layout, pushed[0])), 0)
    before = held.published().copy()
    bad = pushed[1].copy()
    bad[5] = value
    held.push(message(record_of(layout, bad, version=1)), 0)
    np.testing.assert_array_equal(held.published(), before)
    assert (held.counts.applied, held.counts.not_finite, held.updates) == (1, 1, 2)
    held.push(message(record_of(layout, pushed[1], version=1)), 0)
    assert held.version == 2
    assert np.isfinite(held.published()).all()


@pytest.mark.parametrize("change", ["short", "long", "empty", "worker", "version"])
def test_a_malformed_message_changes_nothing(state, layout, change):
    held, vector = new_holder(state, layout), gradients(layout, 1)[0]
    record = record_of(layout, vector)
    if change == "worker":
        record["worker"] = 1
    if change == "version":
        record["version"] = 1  # of the future
    data = message(record)
    data = {"short": data[:-1], "long": data + b"x", "empty": b""}.get(change, data)
    before = held.published().copy()
    assert held.push(data, 0) is None
    np.testing.assert_array_equal(held.published(), before)
    assert (held.counts.malformed, held.updates) == (1, 0)


def test_a_malformed_message_is_told_in_one_line(state, layout):
    held = new_holder(state, layout)
    run = supervisor.Supervisor(held, None, state.actors)
    sent = worker_pool.Message(1, messages.GRADIENT, memoryview(b"no gradient"))
    told = r"worker 1 sent a malformed message \(11 bytes; a gradient has [\d,]+\); it is ignored"
    with pytest.warns(UserWarning, match=told) as caught:
        assert run.take(sent, NoPool()) is None
    (warning,) = caught
    assert "\n" not in str(warning.message)
    assert run.status(0).counts.malformed == 1
    assert run.status(0).workers[1].state == "starting"


class NoPool:
    """Starts nothing."""

    room = 1

    def start(self, index, job):
        pass

    def grant(self, index):
        pass


@pytest.mark.parametrize(("between", "ends"), [(0, True), (999, True), (1000, False)])
def test_restarts_are_counted_over_a_thousand_gradients(state, layout, between, ends):
    workers = dataclasses.replace(WORKERS, max_worker_restarts=2)
    held = new_holder(state, layout, workers)
    parameters = transport.SharedParameters(multiprocessing, len(held.published()))
    run = supervisor.Supervisor(held, parameters, state.actors)
    gradient = np.zeros_like(gradients(layout, 1)[0])

    def die():
        return run.take(worker_pool.Message(1, None, "was killed by SIGABRT"), NoPool())

    def push(worker, number):
        data = record_of(layout, gradient, worker)
        for _ in range(number):
            data["version"] = held.version
            run.take(worker_pool.Message(worker, messages.GRADIENT, message(data)), NoPool())

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert die() is None
        push(0, 1000)  # another worker's do not count
        push(1, between)
        assert die() is None
        error = die()
    assert (error is not None) == ends
    assert held.counts.restarts == len(caught) == (2 if ends else 3)
    assert "was killed by SIGABRT; started again where" in str(caught[0].message)
    if ends:
        assert str(error) == (
            f"worker 1 was killed by SIGABRT after {4 * between:,} steps in probes:RewardByAction;"
            " it was started again 2 times within 1,000 of its gradients, as often as"
            " max_worker_restarts allows"
        )


def test_stale_gradients_are_rejected_and_counted(state, layout):
    workers = dataclasses.replace(WORKERS, max_staleness=1)
    held, pushed = new_holder(state, layout, workers), gradients(layout, 4)
    for i, version in enumerate((0, 0, 0, 1)):
        held.push(message(record_of(layout, pushed[i], version=version)), 0)
    counts = held.counts
    assert (counts.applied, counts.stale, held.updates) == (3, 1, 4)
    assert counts.staleness[:3].tolist() == [1, 2, 0]
    assert counts.staleness_max == 1
    assert held.state().updates == 4


def test_the_schedule_counts_what_was_rejected(state, layout):
    """The environment steps were taken: the next step is as small as if it had been applied."""
    vector = gradients(layout, 1)[0]
    nan = np.full_like(vector, np.nan)
    nothing, held = BatchMoments(None, None), new_holder(state, layout)
    for _ in range(30):
        assert not held.apply(nan, nothing)
    assert held.apply(vector, nothing)
    first = new_holder(state, layout)
    first.apply(vector, nothing)
    start = np.asarray(pytrees.ravel(state.learner.params))
    rates = [float(optimizers.learning_rate(CONFIG, n)) for n in (0, 30)]
    assert rates[1] < 0.8 * rates[0]
    np.testing.assert_allclose(
        (held.published() - start) / rates[1],
        (first.published() - start) / rates[0],
        rtol=1e-3,
        atol=1e-3,
    )


def test_staleness_scaling_divides_the_learning_rate(state, layout):
    workers = dataclasses.replace(WORKERS, staleness_scaling=True)
    pushed, nothing = gradients(layout, 1), BatchMoments(None, None)
    start = np.asarray(pytrees.ravel(state.learner.params))
    moves = []
    for staleness in (0, 1, 4):
        held = new_holder(state, layout, workers)
        held.apply(pushed[0], nothing, staleness)
        moves.append(held.published() - start)
    np.testing.assert_array_equal(moves[0], moves[1])
    np.testing.assert_allclose(moves[2], moves[0] / 4, rtol=1e-3, atol=1e-7)


def test_each_batchs_share_of_the_moments_is_merged():
    config = dataclasses.replace(CONFIG, normalize_observations=True, normalize_rewards=True)
    state = INIT(config, WORKERS, jax.random.key(0))
    layout = messages.layout(config)
    held, pushed = new_holder(state, layout, config=config), gradients(layout, 3)
    rng = np.random.default_rng(0)
    shape = layout.published.obs_moments.mean.shape
    seen = rng.normal(3, 2, (3, 50, *shape)).astype(np.float32)
    returns = rng.normal(-5, 3, (3, 50)).astype(np.float32)
    for i in range(3):
        moments = BatchMoments(*(Moments(50, x.mean(0), x.var(0)) for x in (seen[i], returns[i])))
        record = record_of(layout, pushed[i], version=i, moments=moments)
        assert held.push(message(record), 0)
    found = held.state()
    np.testing.assert_allclose(found.obs_moments.mean, seen.mean((0, 1)), rtol=1e-4)
    np.testing.assert_allclose(found.obs_moments.var, seen.var((0, 1)), rtol=1e-3)
    np.testing.assert_allclose(found.return_moments.var, returns.var(), rtol=1e-3)
    again = messages.learner_of(held.published(), layout.published)
    np.testing.assert_array_equal(again.obs_moments.mean, found.obs_moments.mean)


@pytest.mark.parametrize("normalized", [False, True])
def test_a_records_numbers_follow_each_other(normalized):
    how = dict(normalize_observations=normalized, normalize_rewards=normalized)
    layout = messages.layout(dataclasses.replace(CONFIG, core="gru", core_size=2, **how))
    record = np.zeros(1, layout.record)
    numbers = messages.numbers(memoryview(record.view(np.uint8)), layout)
    numbers[:] = np.arange(len(numbers))
    parts = [record[0][name] for name in BatchGradients._fields]
    assert [part.size for part in parts] == [pytrees.size(x) for x in layout.gradients]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(len(numbers)))
    assert not record[0]["actor"].any()
    assert not record[0]["pulled"]


def row_of(held, layout, interval=20):
    row = counts_module.as_arrays(held.row)
    return counts_module.row_metrics(held.config, held.updates, row, layout.metrics, interval)


def test_a_row_has_the_means_of_its_gradients(state, layout):
    """Of episodes the sums over their number."""
    held, pushed = new_holder(state, layout), gradients(layout, 3)
    for i in range(3):
        metrics = batch_metrics(3.0 * i)
        record = record_of(layout, pushed[i], version=max(0, i - 1), metrics=metrics)
        held.push(message(record), 0)
    row = row_of(held, layout)
    assert (row.updates, row.episodes) == (3, 1 + 4 + 7)
    assert (row.episodic_return, row.episodic_length) == (15 / 12, 18 / 12)
    assert row.losses == {name: 3 + i for i, name in enumerate(LOSSES, 4)}
    assert row.grad_norm == 12
    rates = [float(optimizers.learning_rate(CONFIG, i)) for i in range(3)]
    np.testing.assert_allclose(row.learning_rate, np.mean(rates))
    assert row.extra == {"staleness_mean": 2 / 3, "staleness_max": 1}
    assert row.diverged_at == 0
    held.begin_row()
    empty = row_of(held, layout)
    assert (empty.updates, empty.episodes) == (3, 0)
    assert np.isnan([empty.episodic_return, empty.grad_norm, empty.learning_rate]).all()


@pytest.mark.parametrize("finite", [0, 1])
def test_a_row_of_nothing_but_nan_is_a_run_that_diverged(state, layout, finite):
    """Of 20 gradients or more, and at its end."""
    held = new_holder(state, layout, config=dataclasses.replace(CONFIG, total_timesteps=8000))
    vector = gradients(layout, 1)[0]
    for i in range(40):
        assert row_of(held, layout, 40).diverged_at == 0
        bad = np.full_like(vector, np.nan) if i >= finite else vector
        metrics = batch_metrics(0.0 if i < finite else np.nan)
        held.push(message(record_of(layout, bad, metrics=metrics)), 0)
    assert row_of(held, layout, 40).diverged_at == (0 if finite else 40)
    assert row_of(held, layout, 30).diverged_at == 0  # the row is not at its end


# Settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(num_workers=0), "num_workers = 0: must be at least 1"),
        (dict(envs_per_worker=0), "envs_per_worker = 0: must be at least 1"),
        (dict(max_staleness=-1), "max_staleness = -1: must be at least 0"),
        (dict(max_worker_restarts=-1), "max_worker_restarts = -1: must be at least 0"),
    ],
)
def test_options_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        WorkerConfig(**change).validate()


@pytest.mark.parametrize("change", [dict(num_workers=2.0), dict(lockstep=1)])
def test_options_of_another_type(change):
    with pytest.raises(TypeError, match="must be"):
        WorkerConfig(**change).validate()


def test_the_papers_settings():
    config = base("a3c")
    assert (config.num_steps, config.ent_coef, config.vf_coef) == (5, 0.01, 0.5)
    assert (config.loss_reduction, config.max_grad_norm) == ("sum", 40)
    assert (config.optimizer, config.rmsprop_decay, config.optimizer_eps) == (
        "rmsprop_a3c",
        0.99,
        0.1,
    )
    assert config.anneal_lr
