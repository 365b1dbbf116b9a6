"""Saved runs: loaded, their policies, evaluations and exported parameters."""

import dataclasses
import json
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tiny

import rljax
from rljax import a2c, evaluation
from rljax.loggers import tables
from rljax.runs import checkpoints, directory, records
from rljax.runs.best import updated
from rljax.runs.checkpoints import DamagedError
from rljax.types import AgentState, Moments
from rljax.utils import atomic_io, pytrees

ROW = {name: i for i, name in enumerate(tables.METRICS)}
RECORD = {"algorithm": "a2c", "config": {}, "run": {}}

CONFIG = dataclasses.replace(tiny.CONFIG, normalize_observations=True)
SEEDS = [5, 6]


class Saved(NamedTuple):
    path: object
    states: dict[int, AgentState]
    """By the environment steps of their checkpoints."""


def agents(env_steps):
    """Agents [S], the greedy actions of each of which turn elsewhere: where its moments say."""
    states = a2c.init_seeds(CONFIG, jax.random.split(jax.random.key(env_steps), len(SEEDS)))
    mean = jnp.array([[-1.0], [1.0]]) * env_steps / 160
    moments = Moments(jnp.ones(len(SEEDS)), mean, jnp.full_like(mean, 0.5))
    updates = jnp.full(len(SEEDS), env_steps // CONFIG.batch_size, jnp.int32)
    learner = states.learner._replace(obs_moments=moments, updates=updates)
    return jax.device_get(states._replace(learner=learner))


def save(path, env_steps, states, best=None, config=CONFIG):
    facts = dict(
        algorithm="a2c",
        config=records.config_record(config),
        seeds=SEEDS,
        env_steps=env_steps,
        updates=env_steps // config.batch_size,
        progress={},
        tables=tables.mark(path),
    )
    trees = {"state": states}
    if best:
        trees["best"] = {"learner": best.learner}
        facts["best"] = dict(env_steps=best.env_steps.tolist(), returns=best.returns.tolist())
    checkpoints.save(checkpoints.folder(path, env_steps), trees, facts)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with two checkpoints. Seed 5 did best at the second one, seed 6 at the first one."""
    path = tmp_path_factory.mktemp("runs") / "run"
    directory.create(path, {**RECORD, "config": records.config_record(CONFIG)}, "metrics.csv")
    states, best = {}, None
    for env_steps, returns in ((160, [0.1, 0.9]), (320, [0.5, 0.5])):
        tables.append_metrics(
            path, [{**ROW, "seed": seed, "env_steps": env_steps} for seed in SEEDS]
        )
        states[env_steps] = agents(env_steps)
        learners = states[env_steps].learner
        best = updated(best, learners, np.arange(2), np.array(returns), np.array([env_steps] * 2))
        save(path, env_steps, states[env_steps], best)
    return Saved(path, states)


@pytest.fixture
def copy(whole, tmp_path):
    """The run, to be harmed."""
    return Saved(shutil.copytree(whole.path, tmp_path / "copy"), whole.states)


def damage(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def assert_holds(nested, tree):
    """The nested dicts hold just the leaves of the tree."""
    number = 0
    for name, leaf in pytrees.named_leaves(tree):
        inner = nested
        for part in name.split("/"):
            inner = inner[part]
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        assert inner.dtype == leaf.dtype
        np.testing.assert_array_equal(inner, leaf)
        number += 1
    assert len(jax.tree.leaves(nested)) == number


def learner_of(states, index):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[index], states.learner)


@pytest.mark.parametrize(
    ("checkpoint", "env_steps"), [("last", 320), (320, 320), (160, 160), ("160", 160)]
)
def test_load_gives_what_was_saved(whole, checkpoint, env_steps):
    saved = rljax.load(whole.path, checkpoint)
    assert saved.config == CONFIG
    assert saved.seeds == SEEDS
    assert saved.env_steps == [env_steps, env_steps]
    assert saved.metrics["seed"].tolist() == SEEDS * 2
    assert_holds(saved.state, whole.states[env_steps])


def test_load_of_the_best_gives_those_of_each_seed(whole):
    saved = rljax.load(str(whole.path), "best")
    assert saved.env_steps == [320, 160]
    assert "actor" not in saved.state
    assert "opt_state" not in saved.state["learner"]
    for name in ("params", "obs_moments"):
        last, first = (getattr(whole.states[n].learner, name) for n in (320, 160))
        expected = jax.tree.map(lambda x, y: np.stack([x[0], y[1]]), last, first)
        assert_holds(saved.state["learner"][name], expected)


def test_the_config_is_the_checkpoints_own(copy):
    """A run that was raised to more steps had other settings before."""
    raised = dataclasses.replace(CONFIG, total_timesteps=640)
    record = {**RECORD, "config": records.config_record(raised)}
    atomic_io.write_json(copy.path / "config.json", record)
    assert rljax.load(copy.path).config == CONFIG


OBS = np.linspace(-3, 3, 25, dtype=np.float32)[:, None]


@pytest.mark.parametrize(
    ("checkpoint", "seed", "env_steps", "index"),
    [("last", None, 320, 0), ("last", 6, 320, 1), (160, 5, 160, 0), ("best", 6, 160, 1)],
)
def test_a_loaded_policy_acts_as_the_saved_one(whole, checkpoint, seed, env_steps, index):
    learner = learner_of(whole.states[env_steps], index)
    key = jax.random.key(1)
    for greedy in (True, False):
        loaded = rljax.load(whole.path, checkpoint).policy(seed, greedy)(OBS, key)
        expected = evaluation.policy(CONFIG, learner, greedy)(OBS, key)
        assert len(np.unique(expected)) == 2
        np.testing.assert_array_equal(loaded, expected)


def test_each_checkpoint_and_seed_has_its_own_policy(whole):
    policies = [rljax.load(whole.path, n).policy(seed, True) for n in (160, 320) for seed in SEEDS]
    unlike = learner_of(whole.states[160], 0)._replace(obs_moments=None)
    policies.append(evaluation.policy(CONFIG, unlike, True))
    assert len({tuple(map(int, act(OBS, jax.random.key(0)))) for act in policies}) == 5


def test_a_loaded_policy_takes_one_observation(whole):
    action = rljax.load(whole.path).policy()(np.zeros(1), jax.random.key(0))
    assert action.shape == ()
    assert action in (0, 1)


@pytest.mark.parametrize("seed", [0, -1])
def test_an_unknown_seed_is_refused(whole, tmp_path, seed):
    run = rljax.load(whole.path)
    with pytest.raises(ValueError, match=f"seed = {seed}: the run has 5, 6"):
        run.policy(seed)
    with pytest.raises(ValueError, match=f"seed = {seed}: the run has 5, 6"):
        run.export_params(tmp_path / "policy.safetensors", seed)


@pytest.mark.parametrize("checkpoint", [0, 321, "321", -160, "newest", "", "160.0", True])
def test_an_unknown_checkpoint_is_refused(whole, checkpoint):
    message = f"has no checkpoint {checkpoint!r}: there are last, best, 160, 320"
    with pytest.raises(ValueError, match=message):
        rljax.load(whole.path, checkpoint)


def test_the_best_of_a_run_that_was_not_evaluated(copy):
    save(copy.path, 480, copy.states[320])
    message = r"no checkpoint 'best': it was not .*--eval-every"
    with pytest.raises(ValueError, match=message):
        rljax.load(copy.path, "best")


@pytest.mark.parametrize("checkpoint", ["last", "best"])
@pytest.mark.parametrize("name", ["manifest.json", "state.safetensors", "best.safetensors"])
def test_where_the_newest_is_damaged_the_one_before_is_used(copy, name, checkpoint):
    damage(checkpoints.folder(copy.path, 320) / name)
    with pytest.warns(UserWarning, match=f"000320/{name} .*; the one before is used"):
        saved = rljax.load(copy.path, checkpoint)
    assert saved.env_steps == [160, 160]
    assert_holds(saved.state["learner"]["params"], copy.states[160].learner.params)


def test_a_damaged_checkpoint_that_was_asked_for_is_refused(copy):
    damage(checkpoints.folder(copy.path, 320) / "state.safetensors")
    with pytest.raises(DamagedError, match=r"000320/state\.safetensors"):
        rljax.load(copy.path, 320)


def test_a_run_without_a_whole_checkpoint_is_refused(copy):
    for env_steps in copy.states:
        damage(checkpoints.folder(copy.path, env_steps) / "manifest.json")
    with pytest.raises(ValueError, match=r"no whole checkpoint in .*000320/.*; .*000160/"):
        rljax.load(copy.path)


@pytest.mark.parametrize("checkpoint", ["last", "best", 160])
def test_a_run_without_checkpoints_is_refused(tmp_path, checkpoint):
    run_dir = directory.create(tmp_path / "run", RECORD, "metrics.csv")
    with pytest.raises(ValueError, match="there are none"):
        rljax.load(run_dir, checkpoint)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no run directory"):
        rljax.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(hidden_sizes=(16,)), r"params/\S* is float32\[2, 8, 2\], not float32\[2, 16, 2\]"),
        (dict(hidden_sizes=(8, 8)), r"params/\S* is absent, not float32\[2, 8\]"),
        (dict(shared_torso=True), r"params/critic_\S* is float32\[2, 8\], not absent"),
        (dict(core="gru"), r"params/actor_core/\S* is absent, not float32\[2, "),
        (dict(env="CartPole-v1"), r"params/\S* is float32\[2, 1, 8\], not float32\[2, 4, 8\]"),
        (dict(env="probes:Target"), r"params/\S* is float32\[2, 2\], not float32\[2, 1\]"),
    ],
)
def test_the_policy_of_another_network_is_refused(copy, change, message):
    save(copy.path, 480, copy.states[320], config=dataclasses.replace(CONFIG, **change))
    with pytest.raises(ValueError, match=f"the saved {message}"):
        rljax.load(copy.path).policy()


@pytest.mark.parametrize(
    ("checkpoint", "seed", "env_steps", "index"),
    [("last", None, 320, 0), ("last", 6, 320, 1), ("best", 6, 160, 1)],
)
def test_exported_parameters_are_those_of_one_seed(
    whole, tmp_path, checkpoint, seed, env_steps, index
):
    path = rljax.load(whole.path, checkpoint).export_params(tmp_path / "policy.safetensors", seed)
    assert path == tmp_path / "policy.safetensors"
    arrays = safetensors.numpy.load_file(path)
    learner = learner_of(whole.states[env_steps], index)
    moments = {"mean": learner.obs_moments.mean, "var": learner.obs_moments.var}
    expected = {"params": learner.params, "obs_moments": moments}
    expected = {n.replace("/", "."): x for n, x in pytrees.named_leaves(expected)}
    assert {"params.params.actor_torso.Dense_0.kernel", "obs_moments.mean"} < set(arrays)
    assert set(arrays) - {"obs_moments.count"} == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)
    record = json.loads((tmp_path / "policy.json").read_text())
    assert records.read_config(record) == CONFIG
    assert (record["seed"], record["env_steps"]) == (SEEDS[index], env_steps)


@pytest.fixture
def plain(copy):
    """The run, with a newest checkpoint without moments."""
    states = copy.states[320]
    states = states._replace(learner=states.learner._replace(obs_moments=None))
    save(copy.path, 480, states, config=dataclasses.replace(CONFIG, normalize_observations=False))
    return copy.path


def test_exporting_without_normalisation_gives_parameters_alone(plain, tmp_path):
    arrays = safetensors.numpy.load_file(
        rljax.load(plain).export_params(tmp_path / "p.safetensors")
    )
    assert len(arrays) == 8
    assert all(name.startswith("params.params.") for name in arrays)


def test_exporting_to_the_configs_own_place_is_refused(plain, tmp_path):
    with pytest.raises(ValueError, match=r"must not end in \.json, where the config goes"):
        rljax.load(plain).export_params(tmp_path / "policy.json")
    assert not (tmp_path / "policy.json").exists()


def test_exporting_names_a_path_that_cannot_be_written(plain, tmp_path):
    with pytest.raises(atomic_io.WriteError, match=r"nowhere/p\.safetensors could not be written"):
        rljax.load(plain).export_params(tmp_path / "nowhere" / "p.safetensors")


def test_evaluations_of_a_loaded_run_are_of_fresh_episodes(whole):
    """Each seed by itself; the other checkpoint's policies are others."""
    found = rljax.load(whole.path).evaluate(3)
    assert (found["env"], found["seeds"], found["env_steps"]) == (CONFIG.env, SEEDS, [320, 320])
    assert (found["mode"], found["episodes"], found["unfinished"]) == ("greedy", 3, 0)
    assert set(found["per_seed"]) <= {-1.0, 1.0}
    assert found["mean"] == np.mean(found["per_seed"])
    sampled = rljax.load(whole.path, "best").evaluate(3, greedy=False)
    assert (sampled["mode"], sampled["env_steps"]) == ("sampled", [320, 160])


def test_a_loaded_run_says_what_is_saved_of_it(copy):
    run = rljax.load(copy.path)
    assert (run.algorithm, run.run_dir, run.status, run.summary) == ("a2c", copy.path, None, {})
    assert (run.error, run.exit_status) == (None, 0)
    for text, status in (
        ('{"status": "stopped"}', "stopped"),
        ('{"status": "st', None),
        ("3", None),
    ):
        (copy.path / "summary.json").write_text(text)
        assert rljax.load(copy.path).status == status
    assert "metrics" not in repr(run)
