"""rljax.train: what it is told, what it returns, and what it leaves on disk."""

import json

import jax
import numpy as np
import pytest
import small_runs
from small_runs import CONFIG, OPTIONS, SETTINGS, TIMES, train

import rljax
from rljax import Config, WorkerConfig, a2c, evaluation, presets
from rljax.loggers import tables
from rljax.loggers.summaries import print_evaluation
from rljax.runs import checkpoints, directory, records, settings, training
from rljax.runs.run import returns_summary
from rljax.utils import seeds

SHORT = {**SETTINGS, "total_timesteps": 640, "num_seeds": 2, "eval_episodes": 0, "quiet": True}
"""40 updates, each a row."""
LOCKSTEP = {**SHORT, "total_timesteps": 320, "num_envs": 1, "num_workers": 2, "lockstep": True}
"""80 gradients, each a row."""
ON_HOST = {**SHORT, "env": "host_probes:RewardByAction", "num_envs": 2, "total_timesteps": 160}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def without_times(metrics):
    return metrics.drop(columns=TIMES)


# What it returns


def test_files_of_a_run(finished):
    names = {path.name for path in finished.run_dir.iterdir()}
    files = {"config.json", "metrics.csv", "summary.json", "learning_curve.png", "evaluations.csv"}
    assert names == {*files, "checkpoints", ".lock"}
    record = directory.read_record(finished.run_dir)
    assert Config(**record["config"]).validate() == CONFIG
    assert record["run"]["num_seeds"] == 2
    assert record["run"]["log_interval"] == 2
    assert record["versions"]["jax"] == jax.__version__
    assert record["network"]["torso"] == "MLP"
    assert (finished.run_dir / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_summary_says_what_was_done(finished):
    summary = json.loads((finished.run_dir / "summary.json").read_text())
    assert summary == finished.summary
    assert (finished.status, finished.exit_status, finished.error) == ("completed", 0, None)
    assert summary["seeds"] == finished.seeds == [5, 6]
    assert summary["total_timesteps"] == 3192
    assert finished.env_steps == [summary["env_steps"]] * 2 == [3200, 3200]
    assert "3,192 is rounded up to 3,200" in summary["note"]
    final = summary["final_return"]
    assert final["per_seed"] == [1.0, 1.0]  # greedy after learning which action pays
    assert (final["mode"], final["episodes"], final["unfinished"]) == ("greedy", 4, 0)
    assert final["mean"] == final["iqm"] == 1.0
    assert summary["steps_per_second"] > 0


def test_metrics_are_tidy_and_agree_with_the_algorithm(finished):
    """One row per seed and log point, of what `chunks` gives with the same keys."""
    table = tables.read_metrics(finished.run_dir)
    assert table.equals(finished.metrics)
    assert tuple(table) == tables.METRICS
    chunks = a2c.chunks(CONFIG, seeds.keys([5, 6]))
    rows = [metrics for _, metrics in chunks if metrics.updates[0] % 2 == 0]
    assert table["updates"].tolist() == [n for row in rows for n in row.updates]
    assert table["seed"].tolist() == [5, 6] * len(rows)
    np.testing.assert_array_equal(table["env_steps"], 16 * table["updates"])
    expected = {"episodic_return": [row.episodic_return for row in rows]}
    expected |= {"grad_norm": [row.grad_norm for row in rows]}
    for name in ("loss", "policy_loss", "value_loss", "entropy", "explained_variance"):
        expected[name] = [row.losses[name] for row in rows]
    for name, column in expected.items():
        np.testing.assert_array_equal(np.float32(table[name]), np.concatenate(column))


def test_evaluations_during_training(finished):
    rows = (finished.run_dir / "evaluations.csv").read_text().splitlines()[1:]
    rows = [line.split(",") for line in rows]
    steps = sorted({int(row[1]) for row in rows})
    assert len(steps) == 4
    assert all(0 <= step - due < 32 for step, due in zip(steps, (800, 1600, 2400, 3200)))
    assert {row[3] for row in rows} == {"4"}


def test_the_saved_state_is_the_whole_state(finished):
    """About ten checkpoints were saved at rows of metrics; the newest three are there."""
    assert checkpoints.existing(finished.run_dir) == [2560, 2880, 3200]
    folder = checkpoints.folder(finished.run_dir, 3200)
    manifest, trees = checkpoints.load(folder)
    assert (manifest["seeds"], manifest["updates"]) == ([5, 6], 200)
    assert trees["state"]["learner/updates"].tolist() == [200, 200]
    assert any(name.startswith("actor/key|") for name in trees["state"])
    assert manifest["best"]["returns"] == [1.0, 1.0]


def test_load_gives_what_train_returned(finished):
    loaded = rljax.load(finished.run_dir)
    for name in ("algorithm", "config", "seeds", "summary", "env_steps", "run_dir"):
        assert getattr(loaded, name) == getattr(finished, name)
    assert loaded.metrics.equals(finished.metrics)
    here, there = (jax.tree.leaves_with_path(run.state) for run in (finished, loaded))
    assert [path for path, _ in here] == [path for path, _ in there]
    for (_, one), (_, other) in zip(here, there):
        np.testing.assert_array_equal(one, other, strict=True)
    best = rljax.load(finished.run_dir, "best")
    assert set(best.state) == {"learner"}
    for run in (finished, loaded, best):
        for seed in (5, 6):
            assert run.policy(seed, greedy=True)(np.zeros(1)) == 1


def test_policies_and_evaluations_of_what_was_returned(finished):
    evaluated = finished.evaluate(3)
    assert (evaluated["per_seed"], evaluated["episodes"]) == ([1.0, 1.0], 3)
    assert evaluated["env_steps"] == [3200, 3200]
    sampled = finished.policy(6)
    actions = [int(sampled(np.zeros(1), jax.random.key(i))) for i in range(20)]
    assert set(actions) == {0, 1}
    with pytest.raises(ValueError, match="seed = 7: the run has 5, 6"):
        finished.policy(7)
    path = finished.export_params("policy.safetensors", 6)
    assert records.read_config(json.loads(path.with_suffix(".json").read_text())) == CONFIG
    figure = finished.plot("curve.png")
    assert figure.axes[0].get_title() == "A2C on probes:RewardByAction"


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_one_seed_has_no_interval(num_seeds, capsys):
    ones = np.ones((num_seeds, 3))
    final = returns_summary(evaluation.Evaluation(ones, None, ones > 0), "greedy", 100)
    assert final["ci95"] == (None if num_seeds == 1 else [1, 1])
    names = list(range(num_seeds))
    more = {"env": "It", "checkpoint": "last", "seeds": names, "env_steps": names}
    print_evaluation({**more, **final})
    out = capsys.readouterr().out
    assert "IQM" in out
    assert ("95% interval" in out) == (num_seeds > 1)


# With a run directory, and without


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "told"),
    [("a2c", SHORT), ("a3c", {**LOCKSTEP, "num_seeds": 1, "seed": 1}), ("a2c", ON_HOST)],
    ids=["a2c", "a3c", "on host"],
)
def test_a_run_directory_changes_nothing_of_what_is_returned(tmp_path, algorithm, told):
    kept = rljax.train(algorithm, **told, run_dir=str(tmp_path / "kept"))
    there = small_runs.contents(tmp_path)
    run = rljax.train(algorithm, **told)
    assert small_runs.contents(tmp_path) == there
    assert (run.run_dir, run.status, run.summary["final_return"]) == (None, "completed", None)
    assert without_times(run.metrics).equals(without_times(kept.metrics))
    assert list(run.metrics) == list(kept.metrics)
    assert run.metrics.dtypes.equals(kept.metrics.dtypes)
    jax.tree.map(np.testing.assert_array_equal, run.state, kept.state)
    loaded = rljax.load(kept.run_dir)
    assert loaded.metrics.equals(kept.metrics)
    jax.tree.map(np.testing.assert_array_equal, kept.state, loaded.state)
    key, obs = jax.random.key(1), np.zeros(1, np.float32)
    assert run.policy(1)(obs, key) == loaded.policy(1)(obs, key)
    assert "staleness" in run.summary if algorithm == "a3c" else "staleness" not in run.summary


def test_a_run_without_a_directory_prints_no_directory(capsys):
    rljax.train(**{**SHORT, "quiet": False})
    out = capsys.readouterr().out
    assert "100%" in out
    assert "run directory" not in out
    assert "--resume" not in out


def test_a_run_directory_is_not_overwritten(finished, tmp_path):
    before = small_runs.contents(finished.run_dir)
    with pytest.raises(ValueError, match="already holds a run"):
        train(finished.run_dir)
    assert small_runs.contents(finished.run_dir) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        train(tmp_path / "file" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# What it is told


def test_keywords_are_of_the_config_and_of_the_options(finished):
    assert finished.config == CONFIG
    record = directory.read_record(finished.run_dir)["run"]
    assert {name: record[name] for name in OPTIONS if name in record} == OPTIONS


@pytest.mark.slow
def test_keywords_of_workers(tmp_path):
    told = {**LOCKSTEP, "num_seeds": 1, "max_staleness": 7, "staleness_scaling": True}
    run = rljax.train("a3c", **told, run_dir=tmp_path / "run")
    workers = directory.read_record(run.run_dir)["run"]["workers"]
    own = dict(num_workers=2, max_staleness=7, staleness_scaling=True, lockstep=True)
    assert WorkerConfig(**workers) == WorkerConfig(**own)
    assert run.config.num_envs == workers["envs_per_worker"] == 1


@pytest.mark.parametrize(
    ("algorithm", "told", "kind", "message"),
    [
        ("a2c", dict(gama=0.9), TypeError, "unknown setting 'gama': did you mean gamma?"),
        ("a2c", dict(num_seed=2), TypeError, "unknown setting 'num_seed': did you mean num_seeds"),
        ("a2c", dict(num_workers=2), TypeError, "unknown setting 'num_workers': did you mean num_"),
        ("a3c", dict(num_worker=2), TypeError, "unknown setting 'num_worker': did you mean num_w"),
        ("a2c", dict(resume="run"), TypeError, r"resume: use rljax.resume\(run_dir\)"),
        ("a4c", {}, ValueError, "unknown algorithm 'a4c': did you mean a3c or a2c?"),
        ("a2c", dict(preset="CartPol-v1"), ValueError, "unknown a2c preset 'CartPol-v1': did you"),
        ("a2c", dict(env="CartPol-v1"), ValueError, "unknown environment 'CartPol-v1': did you me"),
        ("a2c", dict(env="nowhere:Env"), ValueError, "'nowhere:Env': No module named 'nowhere'"),
        ("a2c", dict(gamma=1.5), ValueError, r"gamma = 1.5: must be in \[0, 1\]"),
        ("a2c", dict(gamma="high"), TypeError, "gamma = 'high': must be a number"),
        ("a2c", dict(num_envs=16.0), TypeError, "num_envs = 16.0: must be a whole number"),
        ("a2c", dict(seed=2**32 - 1), ValueError, "the last seed must be below 2"),
        ("a2c", dict(eval_every=9), ValueError, "eval_episodes = 0: must be at least 1 with eval_"),
        ("a2c", dict(log_interval=0), ValueError, "log_interval = 0: must be at least 1"),
        ("a2c", dict(log_interval=2.0), TypeError, "log_interval = 2.0: must be a whole number"),
        ("a2c", dict(stop_at_return="high"), TypeError, "stop_at_return = 'high': must be a numb"),
        ("a2c", dict(stop_at_return=float("nan")), ValueError, "stop_at_return = nan: must be fin"),
        ("a3c", dict(lockstep=1), TypeError, "lockstep = 1: must be"),
        ("a3c", dict(device="gpu"), ValueError, "device = 'gpu': A3C computes on the CPU"),
    ],
)
def test_what_is_wrong_is_refused_in_a_line(tmp_path, algorithm, told, kind, message):
    start = SHORT if algorithm == "a2c" else LOCKSTEP
    with pytest.raises(kind, match=message) as caught:
        rljax.train(algorithm, **{**start, **told}, run_dir="run")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_settings_start_from_the_preset_of_the_environment():
    for algorithm, seeds_of in (("a2c", 8), ("a3c", 1)):
        start = settings.start_from(algorithm, "CartPole-v1")
        assert start.config == presets.preset(algorithm, "CartPole-v1")
        assert start.options.num_seeds == seeds_of
        none = settings.start_from(algorithm, "CartPole-v1", "none")
        assert none.config == presets.base(algorithm)
        assert none.config != start.config
        other = settings.start_from(algorithm, "probes:RewardByAction", "CartPole-v1")
        assert other.config.learning_rate == start.config.learning_rate
        assert other.config.env == "probes:RewardByAction"
        assert settings.start_from(algorithm).config == start.config
        own = settings.start_from(algorithm, "probes:RewardByAction")
        assert own.config.optimizer == presets.base(algorithm).optimizer
    for env in (None, "gymnasium/CartPole-v1"):
        variant = settings.start_from("a2c", env, "CartPoleNoVel-v1").config
        assert variant.env == (env or "CartPole-v1")
        assert variant.wrappers == ("mask_velocity",)
    changed = settings.start_from("a2c", "CartPole-v1").replace(dict(gamma=0.5, num_seeds=3))
    assert (changed.config.gamma, changed.options.num_seeds) == (0.5, 3)
    assert changed.config.learning_rate == presets.preset("a2c", "CartPole-v1").learning_rate


def test_a_preset_is_trained():
    run = rljax.train(env="CartPole-v1", total_timesteps=160, num_seeds=1, eval_episodes=0)
    preset = presets.preset("a2c", "CartPole-v1")
    assert run.config.learning_rate == preset.learning_rate
    assert run.config.num_envs == preset.num_envs


def test_a_config_stands_for_the_preset():
    options = dict(num_seeds=2, eval_episodes=0, quiet=True)
    short = Config(**{**SETTINGS, "total_timesteps": 640})
    run = rljax.train(config=short, **options)
    assert run.config == short
    changed = rljax.train("a2c", "host_probes:RewardByAction", config=short, gamma=0.5, **options)
    assert (changed.config.env, changed.config.gamma) == ("host_probes:RewardByAction", 0.5)
    assert changed.config.learning_rate == 0.01
    with pytest.raises(TypeError, match="config = 3: must be a Config"):
        rljax.train(config=3)


def test_an_environment_that_is_an_object():
    import probes

    env = probes.RewardByAction()
    run = rljax.train("a2c", env, **{n: x for n, x in SHORT.items() if n != "env"})
    assert run.config.env is env
    assert run.policy(greedy=True)(np.zeros(1)) in (0, 1)


def test_a_class_or_function_is_recorded_by_its_name(tmp_path):
    """So that it is found again; one that only this program has cannot be."""
    import probes

    own = {n: x for n, x in SHORT.items() if n != "env"}
    run = rljax.train("a2c", probes.RewardByAction, **own, run_dir=tmp_path / "run")
    assert run.config.env is probes.RewardByAction
    assert rljax.load(run.run_dir).config.env == "probes:RewardByAction"
    assert rljax.resume(run.run_dir, quiet=True).status == "completed"

    def local():
        return probes.RewardByAction()

    assert records.config_record(Config(env=local))["env"] is local


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"num_seeds": 2}, False),
        ({"num_seeds": 2, "env": "gymnasium/CartPole-v1"}, True),  # one after another
        ({"num_envs": 512}, False),
        ({"hidden_sizes": (1000, 1000)}, False),
        ({"env": "Breakout-MinAtar"}, False),
        ({"env": "Breakout-MinAtar", "network": "mlp"}, True),
        ({"network": "cnn"}, False),
    ],
)
def test_a_script_takes_one_thread_for_a_small_run_alone(changes, fits):
    asked = settings.start_from("a2c", "CartPole-v1", "none").replace({"num_seeds": 1})
    assert training.fits_one_thread(asked.replace(changes)) == fits
    assert not training.fits_one_thread(settings.start_from("a3c", "CartPole-v1", "none"))
