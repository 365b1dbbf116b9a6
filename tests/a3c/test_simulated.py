"""A3C simulated in one program: against slow references, real processes, and itself."""

import dataclasses
import json
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rljax
from rljax import learner, rollout, sweep
from rljax.a3c import corrections, events, simulated, training
from rljax.a3c.simulation import CORRECTIONS, OF_DATA, SimulationConfig
from rljax.config import Config, WorkerConfig
from rljax.loggers import tables
from rljax.returns import gae
from rljax.utils import pytrees

CONFIG = Config(
    env="probes:RewardByAction",
    total_timesteps=240,
    num_envs=1,
    num_steps=4,
    hidden_sizes=(4,),
    optimizer="rmsprop_a3c",
    loss_reduction="sum",
    optimizer_eps=0.1,
    learning_rate=0.02,
    normalize_rewards=True,
)
MIXED = dict(num_workers=3, transit="exponential:0.5", service="exponential:0.2", in_flight=2)
KEY = jax.random.key(4)

train = jax.jit(simulated.train, static_argnums=3)
init = jax.jit(simulated.init)
update = jax.jit(simulated.update)


def assert_close(found, expected, rtol=1e-4, atol=1e-6):
    close = partial(np.testing.assert_allclose, rtol=rtol, atol=atol)
    jax.tree.map(close, found, expected)


# Against A3C


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [2, 1, 4])
def test_without_durations_it_is_a3c_in_lockstep(num_workers):
    """Real worker processes that take turns, over 200 gradients."""
    config = dataclasses.replace(CONFIG, env="CartPole-v1", total_timesteps=800)
    workers = WorkerConfig(num_workers=num_workers, lockstep=True)
    begun = training.init(config, workers, KEY)
    end, metrics = training.train(config, workers, KEY)
    assert end.counts.applied == 200

    for given in (dict(work="constant:0"), dict(staleness="constant:0")):
        options = SimulationConfig(num_workers=num_workers, diagnostics=False, **given)
        state = init(config, options, KEY)
        packed = jax.vmap(pytrees.pack)(begun.actors)
        published = state.versions._replace(
            params=jax.tree.map(
                lambda kept, x: kept.at[0].set(x), state.versions.params, begun.learner.params
            )
        )
        state = state._replace(
            learner=state.learner._replace(params=begun.learner.params),
            actors=packed,
            versions=published,
        )

        def row(state, _, options=options):
            one = partial(simulated.update, config, options)
            state = jax.lax.fori_loop(0, 2, lambda _, x: one(x), state)
            return simulated.begin_row(state), simulated.row(state)

        state, rows = jax.jit(lambda state, row=row: jax.lax.scan(row, state, None, 100))(state)
        assert_close(state.learner.params, end.learner.params)
        assert_close(state.learner.return_moments.var, end.learner.return_moments.var)
        assert_close(rows.losses, metrics.losses, rtol=1e-3, atol=1e-4)
        assert_close(rows.episodes, metrics.episodes)
        assert rows.extra["staleness_max"].max() == 0


# Against a slow reference, which keeps all versions


@jax.jit
def acted(config, acting, actor):
    env, network = rollout.make_env_and_network(config)
    return rollout.collect(config, env, network, acting, actor)


@partial(jax.jit, static_argnames="options")
def gradient(config, of, actor, batch, behaviour=None, proximal=None, options=None):
    _, network = rollout.make_env_and_network(config)
    estimate = None
    if behaviour is not None:
        batch = batch._replace(recorded=None)
        estimate = corrections.estimator(options.correction, behaviour, proximal, 0.2)
    return learner.compute_gradients(config, network, of, actor, batch, estimate=estimate)


@jax.jit
def log_probs(config, of, batch):
    _, network = rollout.make_env_and_network(config)
    rows = batch.obs.reshape(-1, *batch.obs.shape[2:])
    distribution, _ = rollout.policy(network, of, rows)
    return distribution.log_prob(batch.action.ravel()).reshape(batch.reward.shape)


apply = jax.jit(learner.apply_gradients)


def compensated(options, gradients, newest, stale, squares):
    """(the gradient, the running mean of squares), leaf by leaf."""
    leaves, kind = jax.tree.flatten(gradients)
    decay, found, means = options.compensation_decay, [], []
    for g, new, old, m in zip(leaves, *map(jax.tree.leaves, (newest, stale, squares))):
        means.append(decay * m + (1 - decay) * g**2)
        rate = options.compensation
        if options.correction == "dc_asgd_a":
            rate = rate / np.sqrt(means[-1] + 1e-7)
        found.append(g + rate * g**2 * (new - old))
    return kind.unflatten(found), kind.unflatten(means)


def reference(config, options, state, number):
    """The learner after a number of gradients, with every version in a list; and the staleness of
    each gradient. The clock, which has tests of its own, is asked for whose turn it is."""
    env, network = rollout.make_env_and_network(config)
    like = jax.eval_shape(lambda key: rollout.init(env, network, config.num_envs, key), KEY)
    plain = jax.eval_shape(pytrees.plain, like)
    actors = [pytrees.typed(pytrees.unpack(x, plain), like) for x in state.actors]
    now, versions, clock, key, stale = state.learner, [state.learner], state.clock, state.key, []
    squares = jax.tree.map(np.zeros_like, now.params)
    for turn in range(number):
        key, key_now = jax.random.split(key)
        version = jnp.int32(len(versions) - 1)
        if events.is_given(options):
            found = events.given(options, key_now, jnp.int32(turn), version)
        else:
            found = events.find(clock, version)
            served = found, key_now, version, jnp.int32(turn), jnp.bool_(True)
            clock, _ = events.serve(options, clock, *served)
        worker, of = int(found.worker), versions[int(found.version)]
        old = len(versions) - 1 - int(found.version)
        stale.append(old)
        before, batch = acted(config, of, actors[worker])
        how = config
        if options.stale == "gradients":
            actors[worker], given = gradient(config, of, before, batch)
            g = given.gradients
            if options.correction == "staleness_scaling":
                how = dataclasses.replace(config, learning_rate=config.learning_rate / max(old, 1))
            if options.correction.startswith("dc_asgd"):
                g, squares = compensated(options, g, now.params, of.params, squares)
            now = apply(how, now, g, given.moments)
        else:
            behaviour, first = log_probs(config, of, batch), log_probs(config, now, batch)
            if options.correction == "ess_scaling":
                rho = np.exp(np.array(first - behaviour, float))
                share = rho.sum() ** 2 / (rho.size * (rho**2).sum())
                rate = config.learning_rate * np.float32(np.sqrt(share))
                how = dataclasses.replace(config, learning_rate=rate)
            begun = now
            for epoch in range(options.data_epochs):
                now = now._replace(opt_state=(*now.opt_state[:-1], begun.opt_state[-1]))
                now = now._replace(updates=begun.updates)
                after, given = gradient(
                    config, now, before, batch, behaviour, first, options=options
                )
                if epoch == 0:
                    actors[worker], now = after, apply(how, now, given.gradients, given.moments)
                else:
                    now = apply(how, now, given.gradients)
        versions.append(now)
    return now, stale


GIVEN = [
    dict(MIXED),
    dict(num_workers=2, staleness="uniform:0:5"),
    dict(MIXED, correction="dc_asgd_a", compensation=0.5),
    dict(MIXED, stale="data", correction="vtrace"),
    dict(MIXED, stale="data", correction="decoupled", data_epochs=2),
]
MORE = [
    dict(MIXED, correction="staleness_scaling"),
    dict(MIXED, correction="dc_asgd_c", compensation=0.5),
    dict(MIXED, stale="data"),
    dict(MIXED, stale="data", correction="importance"),
    dict(MIXED, stale="data", correction="ppo_clip", data_epochs=3),
    dict(MIXED, stale="data", correction="ess_scaling"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [*GIVEN, *MORE],
    ids=lambda given: "-".join(str(given[x]) for x in ("stale", "correction") if x in given),
)
def test_it_is_what_a_list_of_all_versions_gives(given):
    options = SimulationConfig(diagnostics=False, **given)
    state, number = init(CONFIG, options, KEY), 40
    expected, stale = reference(CONFIG, options, state, number)
    for _ in range(number):
        state = update(CONFIG, options, state)
    assert_close(state.learner.params, expected.params)
    assert_close(state.learner.return_moments, expected.return_moments)
    assert state.learner.updates == number
    assert state.learner.opt_state[-1].count == number
    counts = np.bincount(stale, minlength=256)
    np.testing.assert_array_equal(state.counts.staleness, counts)
    assert max(stale) > 1


# Corrections, by hand


def test_vtrace_is_its_definition():
    """arXiv 1802.01561, equation 1, as the double sum that it is."""
    generator = np.random.default_rng(3)
    num_steps, gamma, lam = 6, 0.9, 0.8
    rewards, values, next_values = generator.normal(size=(3, num_steps, 1)).astype(np.float32)
    rho = generator.uniform(0.2, 3.0, (num_steps, 1)).astype(np.float32)
    terminated = np.zeros((num_steps, 1), bool)
    truncated = np.zeros((num_steps, 1), bool)
    terminated[1], truncated[3] = True, True
    next_values[:-1][~(terminated | truncated)[:-1]] = values[1:][~(terminated | truncated)[:-1]]
    found = corrections.vtrace(
        *map(jnp.asarray, (rho, rewards, values, next_values, terminated, truncated)), gamma, lam
    )
    targets, advantages, c = values.copy(), np.zeros_like(values), np.minimum(rho, 1.0)
    done = terminated | truncated
    for s in range(num_steps):
        factor = 1.0
        for t in range(s, num_steps):
            following = 0.0 if terminated[t, 0] else next_values[t, 0]
            delta = c[t, 0] * (rewards[t, 0] + gamma * following - values[t, 0])
            targets[s, 0] += factor * delta
            if done[t, 0]:
                break
            factor *= gamma * lam * c[t, 0]
    for s in range(num_steps):
        following = 0.0 if terminated[s, 0] else next_values[s, 0]
        if not done[s, 0] and s + 1 < num_steps:
            following = lam * targets[s + 1, 0] + (1 - lam) * next_values[s, 0]
        advantages[s, 0] = c[s, 0] * (rewards[s, 0] + gamma * following - values[s, 0])
    assert_close(found[1], targets, rtol=1e-5)
    assert_close(found[0], advantages, rtol=1e-5)
    steps = map(jnp.asarray, (rewards, values, next_values, terminated, truncated))
    steps = [*steps, gamma, lam]
    assert_close(corrections.vtrace(jnp.ones_like(rho), *steps), gae(*steps), rtol=1e-5)


@pytest.mark.parametrize("correction", ["importance", "ppo_clip", "decoupled", "ess_scaling"])
def test_the_gradient_is_that_of_the_objective(correction):
    """That of the surrogate objective, differentiated by JAX through the ratios themselves."""
    generator = np.random.default_rng(5)
    logits, behaviour, proximal = generator.normal(0, 0.4, (3, 5, 1)).astype(np.float32)
    advantages = generator.normal(size=(5, 1)).astype(np.float32)
    clip = 0.2

    def objective(log_probs):
        rho = jnp.exp(log_probs - behaviour)
        if correction in ("importance", "ess_scaling"):
            return jnp.sum(rho * advantages)
        if correction == "ppo_clip":
            return jnp.sum(
                jnp.minimum(rho * advantages, jnp.clip(rho, 1 - clip, 1 + clip) * advantages)
            )
        u = jnp.exp(log_probs - proximal)
        inner = jnp.minimum(u * advantages, jnp.clip(u, 1 - clip, 1 + clip) * advantages)
        return jnp.sum(jnp.exp(proximal - behaviour) * inner)

    zeros, no = jnp.zeros((5, 1)), jnp.zeros((5, 1), bool)
    estimate = corrections.estimator(correction, behaviour, proximal, clip)
    config = dataclasses.replace(CONFIG, gamma=0.0)  # the advantages are the rewards
    weighted, _ = estimate(jnp.asarray(logits), advantages, zeros, zeros, no, no, config)
    # Of log pi times a constant the gradient is the constant.
    assert_close(weighted, jax.grad(objective)(jnp.asarray(logits)), rtol=1e-5)


def test_the_effective_sample_size():
    assert corrections.effective_sample_size(jnp.full((3, 2), 7.0)) == pytest.approx(1.0)
    assert corrections.effective_sample_size(jnp.array([1e30, 0, 0, 0])) == pytest.approx(0.25)
    found = corrections.effective_sample_size(jnp.array([1.0, 2.0, 3.0]))
    assert found == pytest.approx(36 / (3 * 14))


def test_every_correction_has_a_test():
    told = {(x.get("stale", "gradients"), x.get("correction", "none")) for x in (*GIVEN, *MORE)}
    assert {correction for _, correction in told} == set(CORRECTIONS)
    assert {correction for stale, correction in told if stale == "data"} == {"none", *OF_DATA}


# Rejections, figures, runs


@pytest.mark.parametrize("optimizer", ["rmsprop_a3c", "adam"])
def test_a_rejected_gradient_changes_nothing_but_the_schedule(optimizer):
    config = dataclasses.replace(CONFIG, optimizer=optimizer, normalize_observations=True)
    options = SimulationConfig(num_workers=2, staleness="constant:3", max_staleness=1)
    states = [init(config, options, KEY)]
    for _ in range(8):
        states.append(update(config, options, states[-1]))
    last = states[-1]
    # Versions 0 and 1 are of gradients whose staleness is at most 1, and then all are too old.
    assert (last.counts.applied, last.counts.stale) == (2, 6)
    np.testing.assert_array_equal(last.counts.staleness[:3], [1, 1, 0])
    before, after = states[4].learner, last.learner
    for one, other in ((before.params, after.params), (before.obs_moments, after.obs_moments)):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    assert jax.tree.all(
        jax.tree.map(lambda x, y: bool((x == y).all()), before.opt_state[:-1], after.opt_state[:-1])
    )
    assert (before.opt_state[-1].count, after.opt_state[-1].count) == (4, 8)
    assert not np.array_equal(states[1].learner.params["params"]["actor_head"]["bias"], 0)
    assert simulated.row(last).extra["staleness_mean"] == pytest.approx(0.5)


def test_gradients_that_are_not_finite_are_rejected():
    config = dataclasses.replace(CONFIG, loss="own_losses:not_a_number_at_times")
    options = SimulationConfig(num_workers=2)
    state, metrics = train(config, options, KEY, None)
    assert 0 < state.counts.not_finite < 60
    assert state.counts.applied + state.counts.not_finite == 60
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.learner.params))
    assert state.diverged_at == 0  # no row of twenty had none
    assert np.isnan(metrics.losses["loss"]).any()  # rows are of one gradient here


@pytest.mark.slow
def test_a_run_of_nothing_but_nan_says_where_it_diverged():
    config = dataclasses.replace(CONFIG, learning_rate=float("inf"))
    state, metrics = train(config, SimulationConfig(num_workers=1), KEY, 30)
    assert state.counts.applied < 5
    assert metrics.diverged_at.tolist() == [0, 60] or metrics.diverged_at[0] in (0, 30)


def test_the_diagnostics_are_those_of_a_slow_reference():
    options = SimulationConfig(num_workers=2, staleness="constant:6")
    state = init(CONFIG, options, KEY)
    for _ in range(12):
        before, state = state, update(CONFIG, options, simulated.begin_row(state))
    env, network = rollout.make_env_and_network(CONFIG)
    like = jax.eval_shape(lambda key: rollout.init(env, network, 1, key), KEY)
    actor = pytrees.unpack(before.actors[11 % 2], jax.eval_shape(pytrees.plain, like))
    place = (11 - 6) % options.versions
    params = jax.tree.map(lambda x: x[place], before.versions.params)
    moments = jax.tree.map(lambda x: x[place], before.versions.return_moments)
    acting = before.learner._replace(params=params, return_moments=moments)
    actor, batch = acted(CONFIG, acting, pytrees.typed(actor, like))
    _, old = gradient(CONFIG, acting, actor, batch)
    _, new = gradient(CONFIG, before.learner, actor, batch._replace(recorded=None))
    a, b = (np.concatenate([*map(np.ravel, jax.tree.leaves(x.gradients))]) for x in (old, new))
    rho = np.exp(log_probs(CONFIG, before.learner, batch) - log_probs(CONFIG, acting, batch))
    found = simulated.row(state).extra
    assert found["cosine"] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-4)
    share = rho.sum() ** 2 / (rho.size * (rho**2).sum())
    assert found["effective_sample_size"] == pytest.approx(share, rel=1e-4)
    assert found["cosine"] < 0.99999
    assert found["staleness_mean"] == 6
    bare = simulated.row(init(CONFIG, dataclasses.replace(options, diagnostics=False), KEY))
    assert set(bare.extra) == {"staleness_mean", "staleness_max", "simulated_time"}


SMALL = dict(total_timesteps=480, num_steps=4, hidden_sizes=(4,), eval_episodes=2, quiet=True)
SMALL |= dict(preset="none", checkpoint_every=160)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    own = dict(MIXED, correction="dc_asgd_a", num_seeds=2)
    return rljax.train("a3c_simulated", CONFIG.env, run_dir=path, **SMALL, **own)


def test_a_run_has_the_columns_and_the_summary_of_a3c(run):
    assert {"staleness_mean", "staleness_max", "cosine", "simulated_time"} <= set(run.metrics)
    assert run.summary["gradients_applied"] == 2 * 120
    assert sum(run.summary["staleness"]["histogram"]) == 2 * 120
    assert (run.metrics.groupby("seed")["simulated_time"].diff().dropna() > 0).all()
    assert run.config.num_envs == 1


def test_a_run_resumes_to_the_same_bits(run, tmp_path):
    path = shutil.copytree(run.run_dir, tmp_path / "run")
    for folder in sorted((path / "checkpoints").iterdir())[1:]:
        shutil.rmtree(folder)
    again = rljax.resume(path, quiet=True)
    jax.tree.map(np.testing.assert_array_equal, again.state, run.state)

    def rows(folder):
        return tables.read_metrics(folder).drop(columns=["wall_seconds", "steps_per_second"])

    assert rows(path).equals(rows(run.run_dir))


@pytest.mark.slow
def test_a_sweep_is_one_program_for_delays_and_rates():
    axes = {"learning_rate": [0.01, 0.02], "transit": ["exponential:0.1", "exponential:3"]}
    own = SimulationConfig(num_workers=3, in_flight=4, diagnostics=False)
    groups = sweep.plan(CONFIG, sweep.grid(axes), range(2), "a3c_simulated", (own,))
    assert len(groups) == 1
    table = sweep.run(
        *(CONFIG, axes, range(2)), algorithm="a3c_simulated", own=own, eval_episodes=0
    )
    last = table[table["updates"] == 60]
    means = table.groupby("transit")["staleness_mean"].mean()
    assert means["exponential:3"] > 1.5 * means["exponential:0.1"]
    alone, _ = train(
        dataclasses.replace(CONFIG, learning_rate=0.02),
        dataclasses.replace(own, transit="exponential:3"),
        jax.vmap(jax.random.key)(np.array([1], np.uint32))[0],
        None,
    )
    is_it = (last.learning_rate == 0.02) & (last.transit == "exponential:3") & (last.seed == 1)
    assert last[is_it]["simulated_time"].item() == pytest.approx(float(alone.time), rel=1e-3)


def test_many_workers_take_memory_by_what_is_in_flight():
    options = SimulationConfig(num_workers=1000, work="constant:1", diagnostics=False)
    state = init(CONFIG, options, KEY)
    assert jax.tree.leaves(state.versions)[0].shape[0] == 2001
    huge = dataclasses.replace(options, num_workers=10**7)
    message = r"num_workers = 10000000, in_flight = 1: 20,000,001 versions of the parameters take"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            simulated.init, dataclasses.replace(CONFIG, hidden_sizes=(64, 64)), huge, KEY
        )


def test_environments_that_python_steps_are_refused():
    config = dataclasses.replace(CONFIG, env="gymnasium/CartPole-v1")
    with pytest.raises(ValueError, match="Python steps it: simulated A3C needs an environment"):
        simulated.init(config, SimulationConfig(), KEY)


@pytest.mark.slow
def test_a_sweep_over_measured_durations(tmp_path):
    """Of two runs with other numbers of workers and gradients: of other shapes."""
    for name, worker in (("one", [0] * 5), ("two", [0, 1, 0, 1, 0, 1])):
        (tmp_path / name).mkdir()
        told = {"worker": worker, "work": [1000 * (x + 1) for x in worker]}
        (tmp_path / name / "summary.json").write_text(json.dumps({"timing": told}))
    axes = {"work": [f"measured:{tmp_path}/one", f"measured:{tmp_path}/two"]}
    own = SimulationConfig(num_workers=2, transit="constant:1e-4", diagnostics=False)
    table = sweep.run(*(CONFIG, axes, [0]), algorithm="a3c_simulated", own=own, eval_episodes=0)
    seconds = table.groupby("work")["simulated_time"].max()
    # Two workers at 1 ms each make 60 gradients in 30 ms; one at 1 and one at 2 ms in 40 ms.
    np.testing.assert_allclose(seconds.sort_values(), [0.030, 0.040], atol=2e-3)
