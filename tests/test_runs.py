"""Run directories: their files, and taking a run up again."""

import dataclasses
import json
import os
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from rljax import Config, a2c, evaluation, runs
from rljax.loggers import tables
from rljax.runs import checkpoints
from rljax.runs.checkpoints import DamagedError
from rljax.types import AgentState, Moments
from rljax.utils import atomic_io, pytrees

ROW = {name: i for i, name in enumerate(tables.METRICS)}
HEADER = ",".join(tables.METRICS) + "\n"
LINE = ",".join(map(str, ROW.values())) + "\n"
RECORD = {"algorithm": "a2c", "config": {}, "run": {}}


@pytest.fixture
def run_dir(tmp_path):
    return runs.create(tmp_path / "run", RECORD)


# config.json


def test_create_writes_config_and_header(tmp_path):
    made = runs.create(tmp_path / "a" / "b", RECORD)
    assert json.loads((made / "config.json").read_text()) == RECORD
    assert (made / "metrics.csv").read_text() == HEADER
    assert sorted(p.name for p in made.iterdir()) == [".lock", "config.json", "metrics.csv"]


def test_create_refuses_what_holds_a_run(run_dir):
    with pytest.raises(ValueError, match=r"'.*run' already holds a run"):
        runs.create(run_dir, {"other": 1})
    assert runs.read_record(run_dir) == RECORD


def test_create_refuses_what_holds_anything(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="is not empty"):
        runs.create(tmp_path, RECORD)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_create_refuses_what_lies_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"'.*file/run' cannot be written \(Not a directory\)"):
        runs.create(tmp_path / "file" / "run", RECORD)


@pytest.mark.parametrize("name", ["config.json", "metrics.csv"])
@pytest.mark.parametrize("made", ["", "a", "a/b"])
def test_create_that_fails_leaves_nothing_behind(tmp_path, monkeypatch, made, name):
    """Of what was there before, all is left."""
    (tmp_path / made).mkdir(exist_ok=True, parents=True)
    before = sorted(tmp_path.rglob("*"))
    write = atomic_io.write

    def fail(path, data):
        if path.name == name:
            raise atomic_io.WriteError(f"{path} could not be written")
        write(path, data)

    monkeypatch.setattr(atomic_io, "write", fail)
    with pytest.raises(ValueError, match=f"cannot be written .*{name}"):
        runs.create(tmp_path / "a" / "b", RECORD)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_directory_is_locked(run_dir):
    refused = pytest.raises(ValueError, match=f"'.*run' is in use by process {os.getpid()} on ")
    with runs.lock(run_dir), refused, runs.lock(run_dir):
        pass
    with runs.lock(run_dir):
        pass


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("nowhere", None, r"'.*nowhere' is no directory: .*config.json \(No such file"),
        ("a_file", None, r"'.*a_file' is no directory: .*config.json \(Not a directory"),
        ("empty", None, r"'.*empty' is no run directory: .*config.json \(No such file"),
        ("run", "", "config.json' is damaged: Expecting value"),
        ("run", '{"config": {}, "run"', "config.json' is damaged: Expecting ':'"),
        ("run", b"\xff\xfe\xff", "config.json' is damaged: 'utf"),
        ("run", "[]", "config.json' is of no run: it has no 'config'"),
        ("run", "null", "config.json' is of no run: it has no 'config'"),
        ("run", '{"config": [], "run": {}}', "config.json' is of no run: it has no 'config'"),
        ("run", '{"config": {}}', "config.json' is of no run: it has no 'run'"),
    ],
)
def test_read_record_says_what_is_wrong(tmp_path, name, text, message):
    (tmp_path / "a_file").write_text("")
    (tmp_path / "empty").mkdir()
    if text is not None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_bytes(
            text if type(text) is bytes else text.encode()
        )
    with pytest.raises(ValueError, match=message) as caught:
        runs.read_record(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(
            env="probes:Truncating",
            env_kwargs={"mode": "hard", "wind": True},
            env_params={"max_steps_in_episode": 200, "gravity": 9.81},
            hidden_sizes=(8, 16),
            max_grad_norm=float("inf"),
            learning_rate=1e-3 / 3,
        ),
        Config(hidden_sizes=(), normalize_observations=True, learning_rate=0),
    ],
)
def test_a_config_survives_json(run_dir, config):
    atomic_io.write_json(run_dir / "config.json", {**RECORD, "config": runs.config_record(config)})
    assert runs.read_config(runs.read_record(run_dir)) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rat": 1e-3}, "unknown setting 'learning_rat': did you mean learning_rate"),
        ({"gamma": 2.0}, "gamma = 2.0"),
        ({"optimizer": "adan"}, "unknown optimizer 'adan': did you mean adam"),
    ],
)
def test_read_config_refuses_other_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        runs.read_config({"config": settings})


@pytest.mark.parametrize("settings", [{"num_envs": "4"}, {"env_params": "x"}, {"hidden_sizes": 8}])
def test_read_config_refuses_other_types(settings):
    with pytest.raises(TypeError, match=next(iter(settings))):
        runs.read_config({"config": settings})


# The tables


def test_metrics_keep_every_digit(run_dir):
    values = np.random.default_rng(0).normal(size=100).astype(np.float32)
    values[:3] = np.float32(0.1) + np.float32(1e-8), np.finfo(np.float32).tiny, 2**-149
    tables.append_metrics(run_dir, [{**ROW, "policy_loss": str(value)} for value in values])
    table = tables.read_metrics(run_dir)
    np.testing.assert_array_equal(np.float32(table["policy_loss"]), values)


def test_metrics_of_several_rows(run_dir):
    tables.append_metrics(run_dir, [{**ROW, "episodic_return": "", "grad_norm": "inf"}])
    tables.append_metrics(run_dir, [ROW, {**ROW, "seed": 7}])
    table = tables.read_metrics(run_dir)
    assert tuple(table.columns) == tables.METRICS
    assert table["seed"].tolist() == [0, 0, 7]
    np.testing.assert_array_equal(table["episodic_return"], [np.nan, 5, 5])
    np.testing.assert_array_equal(table["grad_norm"], [np.inf, 11, 11])
    for name in ("seed", "env_steps", "updates", "episodes"):
        assert table[name].dtype == np.int64


def test_fresh_metrics_have_columns_and_no_rows(run_dir):
    table = tables.read_metrics(run_dir)
    assert tuple(table.columns) == tables.METRICS
    assert len(table) == 0


@pytest.mark.parametrize("end", [1, len(LINE) // 2, len(LINE) - 1])
def test_half_a_last_line_is_left_out(run_dir, end):
    with open(run_dir / "metrics.csv", "a") as file:
        file.write(LINE + LINE[:end])
    assert tables.read_metrics(run_dir)["seed"].tolist() == [0]


def test_additional_columns_are_kept(run_dir):
    text = f"{HEADER.strip()},kl\n" + f"{LINE.strip()},0.25\n" * 2
    (run_dir / "metrics.csv").write_text(text)
    table = tables.read_metrics(run_dir)
    assert tuple(table.columns) == (*tables.METRICS, "kl")
    assert table["kl"].tolist() == [0.25, 0.25]


def test_metrics_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"metrics.csv' cannot be read \(No such file"):
        tables.read_metrics(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n",
        LINE + LINE,
        HEADER + LINE.replace("5", "x"),
        HEADER + LINE.replace("5", "\0"),
        HEADER + LINE.replace("5", "\xff"),
        HEADER + LINE.replace("0,1,", ",1,", 1),
        HEADER + "0,1,2\n" + LINE,
        HEADER + LINE.replace("0,", '"0,', 1) + LINE,
        HEADER + LINE.replace("0,", '"0,', 1) + 5_000 * LINE,
    ],
    ids=[
        "other columns",
        "no header",
        "a letter",
        "a null byte",
        "no UTF-8",
        "no seed",
        "a short row",
        "a quote",
        "a quote in a long table",
    ],
)
def test_damaged_metrics_are_an_error_of_one_line(run_dir, text):
    (run_dir / "metrics.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"metrics\.csv' is damaged") as caught:
        tables.read_metrics(run_dir)
    assert "\n" not in str(caught.value)


def test_evaluations_have_a_header_and_a_row_per_seed(run_dir):
    returns = np.array([[0.1, 0.2], [3, 4]], np.float32)
    tables.append_evaluations(run_dir, [5, 6], 160, 10, returns)
    tables.append_evaluations(run_dir, [5, 6], 320, 20, returns + 1)
    header, *rows = (run_dir / "evaluations.csv").read_text().splitlines()
    assert header == ",".join(tables.EVALUATIONS)
    assert [row.split(",")[:4] for row in rows] == [
        ["5", "160", "10", "2"],
        ["6", "160", "10", "2"],
        ["5", "320", "20", "2"],
        ["6", "320", "20", "2"],
    ]
    means = [np.float32(row.split(",")[4]) for row in rows]
    np.testing.assert_array_equal(
        means, np.concatenate([r.mean(1) for r in (returns, returns + 1)])
    )


def test_evaluations_after_a_full_disk_have_a_header(run_dir, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(atomic_io, "open", lambda *_, **__: full(), raising=False)
        with pytest.raises(atomic_io.WriteError):
            tables.append_evaluations(run_dir, [5], 160, 10, np.ones((1, 2)))
    tables.append_evaluations(run_dir, [5], 320, 20, np.ones((1, 2)))
    assert (run_dir / "evaluations.csv").read_text().startswith(",".join(tables.EVALUATIONS))


def test_begin_tables_empties_them(run_dir):
    tables.append_metrics(run_dir, [ROW])
    tables.append_evaluations(run_dir, [5], 160, 10, np.ones((1, 2)))
    tables.begin(run_dir)
    assert (run_dir / "metrics.csv").read_text() == HEADER
    assert not (run_dir / "evaluations.csv").exists()


# Marks: where the tables were at a checkpoint


def fill(run_dir, evaluated=True):
    tables.append_metrics(run_dir, [ROW, ROW])
    if evaluated:
        tables.append_evaluations(run_dir, [5, 6], 160, 10, np.ones((2, 3)))


def table_bytes(run_dir):
    return {p.name: p.read_text() for p in run_dir.glob("*.csv")}


@pytest.mark.parametrize("half", ["", "7,32"])
def test_cut_takes_the_tables_back_to_their_marks(run_dir, half):
    fill(run_dir)
    marked, marks = table_bytes(run_dir), json.loads(json.dumps(tables.mark(run_dir)))
    fill(run_dir)
    for name in marks:
        atomic_io.append(run_dir / name, half)
    tables.check(run_dir, marks)
    assert table_bytes(run_dir) != marked
    tables.cut(run_dir, marks)
    assert table_bytes(run_dir) == marked
    tables.check(run_dir, marks)


def test_cut_of_tables_that_have_not_grown_changes_nothing(run_dir):
    fill(run_dir)
    marked = table_bytes(run_dir)
    tables.cut(run_dir, tables.mark(run_dir))
    assert table_bytes(run_dir) == marked


def test_cut_removes_evaluations_that_began_later(run_dir):
    fill(run_dir, evaluated=False)
    marked, marks = table_bytes(run_dir), tables.mark(run_dir)
    fill(run_dir)
    tables.check(run_dir, marks)
    tables.cut(run_dir, marks)
    assert table_bytes(run_dir) == marked
    tables.cut(run_dir, marks)  # there are none now
    assert table_bytes(run_dir) == marked


def change_a_digit(path):
    path.write_text(path.read_text().replace("1", "2", 1))


def drop_the_last_byte(path):
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("name", tables.TABLES)
@pytest.mark.parametrize(
    "harm", [change_a_digit, drop_the_last_byte, os.unlink], ids=["changed", "shortened", "removed"]
)
@pytest.mark.parametrize("grown", [False, True])
def test_a_table_that_is_not_as_marked_is_damaged(run_dir, name, harm, grown):
    fill(run_dir)
    marks = tables.mark(run_dir)
    if grown and harm is change_a_digit:
        fill(run_dir)
    harm(run_dir / name)
    with pytest.raises(DamagedError, match=f"{run_dir / name} was changed or cut"):
        tables.check(run_dir, marks)


# Taking a run up again

CONFIG = Config(
    env="probes:RewardByAction",
    total_timesteps=320,
    num_envs=4,
    num_steps=4,
    hidden_sizes=(8,),
    normalize_observations=True,
)
SEEDS = [5, 6]


class Run(NamedTuple):
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
        config=runs.config_record(config),
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
    runs.create(path, {**RECORD, "config": runs.config_record(CONFIG)})
    states, best = {}, None
    for env_steps, returns in ((160, [0.1, 0.9]), (320, [0.5, 0.5])):
        tables.append_metrics(
            path, [{**ROW, "seed": seed, "env_steps": env_steps} for seed in SEEDS]
        )
        states[env_steps] = agents(env_steps)
        learners = states[env_steps].learner
        best = evaluation.best(best, learners, np.array(returns), env_steps)
        save(path, env_steps, states[env_steps], best)
    return Run(path, states)


@pytest.fixture
def copy(whole, tmp_path):
    """The run, to be harmed."""
    return Run(shutil.copytree(whole.path, tmp_path / "copy"), whole.states)


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
    return jax.tree.map(lambda leaf: leaf[index], states.learner)


@pytest.mark.parametrize(
    ("checkpoint", "env_steps"), [("last", 320), (320, 320), (160, 160), ("160", 160)]
)
def test_load_gives_what_was_saved(whole, checkpoint, env_steps):
    saved = runs.load(whole.path, checkpoint)
    assert saved.config == CONFIG
    assert saved.seeds == SEEDS
    assert saved.env_steps == [env_steps, env_steps]
    assert saved.metrics["seed"].tolist() == SEEDS * 2
    assert_holds(saved.state, whole.states[env_steps])


def test_load_of_the_best_gives_those_of_each_seed(whole):
    saved = runs.load(str(whole.path), "best")
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
    record = {**RECORD, "config": runs.config_record(raised)}
    atomic_io.write_json(copy.path / "config.json", record)
    assert runs.load(copy.path).config == CONFIG


OBS = np.linspace(-3, 3, 25, dtype=np.float32)[:, None]


@pytest.mark.parametrize(
    ("checkpoint", "seed", "env_steps", "index"),
    [("last", None, 320, 0), ("last", 6, 320, 1), (160, 5, 160, 0), ("best", 6, 160, 1)],
)
def test_a_loaded_policy_acts_as_the_saved_one(whole, checkpoint, seed, env_steps, index):
    learner = learner_of(whole.states[env_steps], index)
    key = jax.random.key(1)
    for greedy in (True, False):
        loaded = runs.load_policy(whole.path, checkpoint, seed, greedy)(OBS, key)
        expected = evaluation.policy(CONFIG, learner, greedy)(OBS, key)
        assert len(np.unique(expected)) == 2
        np.testing.assert_array_equal(loaded, expected)


def test_each_checkpoint_and_seed_has_its_own_policy(whole):
    policies = [runs.load_policy(whole.path, n, seed, True) for n in (160, 320) for seed in SEEDS]
    unlike = learner_of(whole.states[160], 0)._replace(obs_moments=None)
    policies.append(evaluation.policy(CONFIG, unlike, True))
    assert len({tuple(map(int, act(OBS, jax.random.key(0)))) for act in policies}) == 5


def test_a_loaded_policy_takes_one_observation(whole):
    action = runs.load_policy(whole.path)(np.zeros(1), jax.random.key(0))
    assert action.shape == ()
    assert action in (0, 1)


@pytest.mark.parametrize("seed", [0, -1])
def test_an_unknown_seed_is_refused(whole, tmp_path, seed):
    with pytest.raises(ValueError, match=f"seed = {seed}: the run has 5, 6"):
        runs.load_policy(whole.path, seed=seed)
    with pytest.raises(ValueError, match=f"seed = {seed}: the run has 5, 6"):
        runs.export_params(whole.path, tmp_path / "policy.safetensors", seed=seed)


@pytest.mark.parametrize("checkpoint", [0, 321, "321", -160, "newest", "", "160.0", True])
def test_an_unknown_checkpoint_is_refused(whole, checkpoint):
    message = f"has no checkpoint {checkpoint!r}: there are last, best, 160, 320"
    with pytest.raises(ValueError, match=message):
        runs.load(whole.path, checkpoint)


def test_the_best_of_a_run_that_was_not_evaluated(copy):
    save(copy.path, 480, copy.states[320])
    message = r"no checkpoint 'best': it was not .*--eval-every"
    with pytest.raises(ValueError, match=message):
        runs.load(copy.path, "best")


@pytest.mark.parametrize("checkpoint", ["last", "best"])
@pytest.mark.parametrize("name", ["manifest.json", "state.safetensors", "best.safetensors"])
def test_where_the_newest_is_damaged_the_one_before_is_used(copy, name, checkpoint):
    damage(checkpoints.folder(copy.path, 320) / name)
    with pytest.warns(UserWarning, match=f"000320/{name} .*; the one before is used"):
        saved = runs.load(copy.path, checkpoint)
    assert saved.env_steps == [160, 160]
    assert_holds(saved.state["learner"]["params"], copy.states[160].learner.params)


def test_a_damaged_checkpoint_that_was_asked_for_is_refused(copy):
    damage(checkpoints.folder(copy.path, 320) / "state.safetensors")
    with pytest.raises(DamagedError, match=r"000320/state\.safetensors"):
        runs.load(copy.path, 320)


def test_a_run_without_a_whole_checkpoint_is_refused(copy):
    for env_steps in copy.states:
        damage(checkpoints.folder(copy.path, env_steps) / "manifest.json")
    with pytest.raises(ValueError, match=r"no whole checkpoint in .*000320/.*; .*000160/"):
        runs.load(copy.path)


@pytest.mark.parametrize("checkpoint", ["last", "best", 160])
def test_a_run_without_checkpoints_is_refused(run_dir, checkpoint):
    with pytest.raises(ValueError, match="there are none"):
        runs.load(run_dir, checkpoint)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no run directory"):
        runs.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(hidden_sizes=(16,)), r"params/\S* is float32\[2, 8, 2\], not float32\[2, 16, 2\]"),
        (dict(hidden_sizes=(8, 8)), r"params/\S* is absent, not float32\[2, 8\]"),
        (dict(shared_torso=True), r"params/critic_\S* is float32\[2, 8\], not absent"),
        (dict(env="CartPole-v1"), r"params/\S* is float32\[2, 1, 8\], not float32\[2, 4, 8\]"),
        (dict(env="probes:Target"), r"params/\S* is float32\[2, 2\], not float32\[2, 1\]"),
    ],
)
def test_the_policy_of_another_network_is_refused(copy, change, message):
    save(copy.path, 480, copy.states[320], config=dataclasses.replace(CONFIG, **change))
    with pytest.raises(ValueError, match=f"the saved {message}"):
        runs.load_policy(copy.path)


@pytest.mark.parametrize(
    ("checkpoint", "seed", "env_steps", "index"),
    [("last", None, 320, 0), ("last", 6, 320, 1), ("best", 6, 160, 1)],
)
def test_exported_parameters_are_those_of_one_seed(
    whole, tmp_path, checkpoint, seed, env_steps, index
):
    path = runs.export_params(whole.path, tmp_path / "policy.safetensors", checkpoint, seed)
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
    assert runs.read_config(record) == CONFIG
    assert (record["seed"], record["env_steps"]) == (SEEDS[index], env_steps)


@pytest.fixture
def plain(copy):
    """The run, with a newest checkpoint without moments."""
    states = copy.states[320]
    states = states._replace(learner=states.learner._replace(obs_moments=None))
    save(copy.path, 480, states, config=dataclasses.replace(CONFIG, normalize_observations=False))
    return copy.path


def test_exporting_without_normalisation_gives_parameters_alone(plain, tmp_path):
    arrays = safetensors.numpy.load_file(runs.export_params(plain, tmp_path / "p.safetensors"))
    assert len(arrays) == 8
    assert all(name.startswith("params.params.") for name in arrays)


def test_exporting_names_a_path_that_cannot_be_written(plain, tmp_path):
    with pytest.raises(atomic_io.WriteError, match=r"nowhere/p\.safetensors could not be written"):
        runs.export_params(plain, tmp_path / "nowhere" / "p.safetensors")
