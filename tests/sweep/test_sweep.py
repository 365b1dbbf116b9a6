"""Sweeps: what a population comes to against lone runs, neighbours, devices, processes, files."""

import dataclasses
import json
import logging
import os
import threading

import jax
import numpy as np
import pandas as pd
import probes
import pytest
import tiny

from rljax import Config, a2c, analysis, evaluation, sweep
from rljax.config import WorkerConfig
from rljax.loggers import tables
from rljax.sweep import programs, results, trial_pool
from rljax.types import Metrics
from rljax.utils import sharding, verified

BASE = tiny.CONFIG
RATES = [1e-3, 1e-2, 3e-2]


@pytest.fixture(scope="module")
def table():
    """Three rates, two seeds, in batches of four trials: the last one is filled up."""
    with tiny.optimized():
        return sweep.run(BASE, {"learning_rate": RATES}, [3, 5], max_parallel=4, eval_episodes=6)


def alone(rate, seed):
    config = dataclasses.replace(BASE, learning_rate=rate)
    return jax.jit(a2c.train)(config, jax.random.key(seed))


def test_the_table_is_tidy(table):
    assert list(table) == [
        *("trial", "point", "seed", "learning_rate", "env_steps", "updates", "episodes"),
        *("episodic_return", "episodic_length", "loss", "policy_loss", "value_loss", "entropy"),
        *("explained_variance", "grad_norm", "eval_return", "diverged"),
    ]
    assert len(table) == 6 * 20
    assert table["trial"].tolist() == np.repeat(range(6), 20).tolist()
    assert table["env_steps"].tolist() == list(range(16, 321, 16)) * 6
    finals = table.groupby("trial").last()
    assert finals["learning_rate"].tolist() == np.repeat(RATES, 2).tolist()
    assert finals["seed"].tolist() == [3, 5] * 3
    assert not table["diverged"].any()


def test_a_trial_is_the_run_of_its_settings_and_seed(table):
    """To rounding, which learning makes larger."""
    for trial, (rate, seed) in enumerate((rate, seed) for rate in RATES for seed in (3, 5)):
        _, metrics = alone(rate, seed)
        rows = table[table["trial"] == trial]
        for name, expected in tables.means(metrics).items():
            np.testing.assert_allclose(rows[name], expected, rtol=2e-3, atol=2e-4)


def test_the_evaluation_is_that_of_the_trained_policy(table):
    """As the training script makes it, from the same keys."""
    state, _ = alone(RATES[2], 5)
    learners = jax.tree.map(lambda x: np.asarray(x)[None], state.learner)
    keys = evaluation.evaluation_keys(jax.random.key(5)[None], BASE.num_updates)
    played = evaluation.evaluate(BASE, learners, keys, 6, greedy=True)
    assert table["eval_return"].iloc[-1] == pytest.approx(played.returns.mean())
    is_last = table["env_steps"] == 320
    assert table["eval_return"].isna().tolist() == (~is_last).tolist()


def compiled(caplog, axes, **options):
    """Names of the programs that a sweep compiles."""
    caplog.clear()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        sweep.run(BASE, axes, [0], max_parallel=2, eval_episodes=0, **options)
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith("Compiling")]


@pytest.mark.slow
def test_a_group_is_compiled_once_and_new_floats_never(caplog):
    axes = {"ent_coef": [0.0, 0.01], "gamma": [0.9, 0.99], "num_steps": [2, 3]}
    found = compiled(caplog, axes)
    assert sum("advance" in text for text in found) == 2
    assert sum("init" in text for text in found) == 2
    axes = {"ent_coef": [0.02, 0.03], "gamma": [0.5, 0.6], "num_steps": [2, 3]}
    assert compiled(caplog, axes) == []


def test_a_diverging_trial_touches_no_neighbour(table):
    """In the same program, with a neighbour that diverges and one that does not."""
    points = [{"learning_rate": rate} for rate in (RATES[0], 1e37)]
    with tiny.optimized():
        other = sweep.run(BASE, points, [3, 5], max_parallel=4, eval_episodes=6)
    lost, kept = other[other["point"] == 1], other[other["point"] == 0]
    assert lost["diverged"].iloc[-1]
    assert lost.groupby("trial")["diverged"].apply(lambda x: x.is_monotonic_increasing).all()
    assert lost["eval_return"].isna().all()
    assert len(lost) == len(kept) == 40
    pd.testing.assert_frame_equal(kept, table[table["point"] == 0])


def test_a_batch_that_fails_is_named_and_leaves_the_others_alone():
    """The two trials of a batch call the host 160 times."""
    probe = probes.CallingBack(calls=200)
    base = Config(
        env=probe, total_timesteps=80, num_envs=1, num_steps=5, hidden_sizes=(4,), learning_rate=0.0
    )
    [group] = sweep.plan(base, sweep.grid({"ent_coef": [0.0, 0.1, 0.2]}), [0, 1])
    how = sweep.SweepOptions(max_parallel=2, eval_episodes=0)
    steps = list(sweep.chunks([group], how))
    finished = [trial.number for s in steps if s.result for trial in s.result.trials]
    failed = [s.failure for s in steps if s.failure]
    assert (finished, [failure.trial.number for failure in failed]) == ([0, 1], [2, 3, 4, 5])
    assert all("out of fuel" in failure.why for failure in failed)


def test_one_device_gives_what_two_give(table, monkeypatch):
    """Bit for bit, with as many trials on each."""
    monkeypatch.setattr(sharding, "devices", lambda: jax.local_devices()[:1])
    with tiny.optimized():
        one = sweep.run(BASE, {"learning_rate": RATES}, [3, 5], max_parallel=2, eval_episodes=6)
    pd.testing.assert_frame_equal(one, table)


@pytest.mark.slow
def test_batches_shrink_to_the_memory_that_there_is(table, monkeypatch):
    sizes = []
    make = programs._advancing

    def note(program):
        sizes.append(program.each)
        return make(program)

    trial = sweep.plan(BASE, [{}], [0])[0].trials[0]
    one = programs.fitting(trial, sweep.SweepOptions(), 2).bytes
    monkeypatch.setattr(programs, "_advancing", note)
    monkeypatch.setattr(sharding, "memory", lambda mesh: 3 * one)
    again = sweep.run(BASE, {"learning_rate": RATES}, [3, 5], max_parallel=6, eval_episodes=6)
    assert sizes[0] == 3
    assert sizes[-1] < 3
    pd.testing.assert_frame_equal(again, table, rtol=2e-3, atol=2e-4)


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU here")
def test_as_many_trials_at_once_as_are_fastest():
    """What two CPU devices hold in their caches."""
    base = dataclasses.replace(BASE, total_timesteps=10_000)

    def parallel(**settings):
        return programs.usual_parallel(a2c, dataclasses.replace(base, **settings))

    assert [parallel(num_envs=number) for number in (1, 16, 512)] == [64, 16, 2]
    assert parallel(num_envs=1, hidden_sizes=(256, 256)) == 6  # 1.06 MB each


# The files


def finished(trials):
    """A result of trials with two log points each."""
    numbers = np.arange(2 * len(trials), dtype=np.float32).reshape(2, -1)
    losses = dict.fromkeys(("loss", "policy_loss", "value_loss"), numbers)
    metrics = Metrics(*[numbers.copy() for _ in range(4)], losses, numbers, numbers, 0 * numbers)
    return sweep.Result(trials, metrics, np.ones(len(trials)))


@pytest.fixture
def journal(tmp_path):
    return sweep.Journal(tmp_path)


@pytest.fixture
def trials():
    (group,) = sweep.plan(BASE, sweep.grid({"gamma": [0.9, 0.99]}), [0, 1])
    return group.trials


def test_the_table_on_disk_is_that_in_memory(table, tmp_path):
    config = Config(env="probes:RewardByAction", network="a,b", hidden_sizes=(8,))
    points = [{"network": 'na"n,x', "hidden_sizes": (4, 4), "anneal_lr": True, "gamma": 0.1 + 0.2}]
    (group,) = sweep.plan(config, points, [0, 1])
    result = finished(group.trials)
    result.metrics.episodic_return[0, 1] = np.nan
    (tmp_path / "results.csv").write_text(results.lines(result))
    wanted = results.frame([sweep.columns(result)])
    read = sweep.read(tmp_path)
    pd.testing.assert_frame_equal(read, wanted, check_dtype=False)
    assert read["gamma"][0] == 0.1 + 0.2
    assert read["network"][0] == 'na"n,x'
    assert read["hidden_sizes"][0] == "4x4"


def test_an_evaluation_that_is_no_number_counts_as_diverged(trials):
    """Else the trial's return in training would stand for it."""
    result = finished(trials)._replace(eval_returns=np.array([1, np.nan, np.inf, 2]))
    columns = sweep.columns(result)
    np.testing.assert_array_equal(columns["eval_return"][1::2], [1, np.nan, np.nan, 2])
    assert columns["diverged"].tolist() == [False] * 3 + [True, False, True, False, False]
    finals = analysis.final_returns(columns)
    np.testing.assert_array_equal(finals["final_return"], [1, np.nan, np.nan, 2])


def test_a_journal_goes_on_after_its_last_whole_line(journal, trials, tmp_path):
    journal.add(finished(trials[:2]), 1.0, 2.0)
    whole = (tmp_path / "results.csv").read_bytes()
    journal.add(finished(trials[2:]), 2.5, 3.5)
    both = (tmp_path / "results.csv").read_bytes()
    assert sweep.Journal(tmp_path).trials == [0, 1, 2, 3]
    lines = (tmp_path / "finished.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "finished.jsonl").write_bytes(lines[0] + lines[1][:-5])  # killed while writing
    again = sweep.Journal(tmp_path)
    assert again.trials == [0, 1]
    assert (again.train_seconds, again.wall_seconds) == (1.0, 2.0)
    assert (tmp_path / "results.csv").read_bytes() == whole
    again.add(finished(trials[2:]), 2.5, 3.5)
    assert (tmp_path / "results.csv").read_bytes() == both
    assert sweep.Journal(tmp_path).trials == [0, 1, 2, 3]


@pytest.mark.parametrize("missing", ["results.csv", "finished.jsonl"])
def test_a_journal_that_was_never_begun_is_begun(journal, tmp_path, missing):
    """Its process was killed before it had written both."""
    (tmp_path / missing).unlink()
    assert sweep.Journal(tmp_path).trials == []
    assert (tmp_path / "results.csv").read_text() == ""


def test_rows_are_not_thrown_away_where_the_journal_is_missing(journal, trials, tmp_path):
    journal.add(finished(trials), 1.0, 2.0)
    (tmp_path / "finished.jsonl").unlink()
    table = (tmp_path / "results.csv").read_bytes()
    with pytest.raises(ValueError, match=r"results.csv has rows, and .*finished.jsonl is missing"):
        sweep.Journal(tmp_path)
    assert (tmp_path / "results.csv").read_bytes() == table


def test_a_damaged_journal_is_refused(journal, trials, tmp_path):
    journal.add(finished(trials), 1.0, 2.0)
    path = tmp_path / "finished.jsonl"
    table = (tmp_path / "results.csv").read_bytes()
    for damaged in (b"nonsense\n", b"{}\n", b"[1]\n"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"finished.jsonl is damaged"):
            sweep.Journal(tmp_path)
        assert (path.read_bytes(), (tmp_path / "results.csv").read_bytes()) == (damaged, table)


def test_a_journal_refuses_another_table(journal, trials, tmp_path):
    journal.add(finished(trials), 1.0, 2.0)
    table = tmp_path / "results.csv"
    table.write_bytes(table.read_bytes().replace(b"0", b"7"))
    changed = table.read_bytes()
    with pytest.raises(ValueError, match=r"results.csv was changed or cut"):
        sweep.Journal(tmp_path)
    assert table.read_bytes() == changed


@pytest.mark.parametrize(
    ("begin", "end", "message"),
    [
        (b'"' + b"x" * 200_000, b"", "is damaged: its header is invalid"),
        (b"\xff", b"", "is damaged: its header is invalid"),
        (b"", b"9", "was changed or cut"),  # the next row would continue the last
    ],
)
def test_a_table_that_cannot_be_continued_is_refused(
    journal, trials, tmp_path, begin, end, message
):
    """Though its sum is right."""
    journal.add(finished(trials), 1.0, 2.0)
    data = begin + (tmp_path / "results.csv").read_bytes() + end
    (tmp_path / "results.csv").write_bytes(data)
    entry = json.loads((tmp_path / "finished.jsonl").read_bytes()) | verified.mark(data)
    (tmp_path / "finished.jsonl").write_text(json.dumps(entry) + "\n")
    with pytest.raises(ValueError, match=f"results.csv {message}"):
        sweep.Journal(tmp_path)
    assert (tmp_path / "results.csv").read_bytes() == data


def test_rows_are_of_the_columns_that_the_table_has(trials):
    """A metric that there is none of is empty."""
    names = sweep.columns(finished(trials))
    names = ["agent", *[*names][1:7], "of_then", "diverged"]
    rows = results.lines(finished(trials), names).splitlines()
    assert rows[0] == "0,0,0,0.9,0,0,0,,False"
    assert len(rows) == 2 * len(trials)


# Processes

HOST = dataclasses.replace(BASE, env="host_probes:RewardByAction", total_timesteps=160)


@pytest.mark.slow
def test_environments_that_python_steps_are_swept_in_processes():
    """The numbers of `a2c.train`, one trial after another."""
    axes = {"learning_rate": [1e-3, 1e-2]}
    table = sweep.run(HOST, axes, [0, 1], max_parallel=2, eval_episodes=5)
    assert table.groupby("trial").size().tolist() == [10] * 4
    config = dataclasses.replace(HOST, learning_rate=1e-2)
    state, metrics = a2c.train(config, jax.random.key(1))
    rows = table[table["trial"] == 3]
    for name, expected in tables.means(metrics).items():
        np.testing.assert_allclose(rows[name], expected, rtol=1e-3, atol=1e-4)
    learners = jax.tree.map(lambda x: np.asarray(x)[None], state.learner)
    keys = evaluation.evaluation_keys(jax.random.key(1)[None], config.num_updates)
    played = evaluation.evaluate(config, learners, keys, 5, greedy=True)
    assert rows["eval_return"].iloc[-1] == pytest.approx(played.returns.mean())


@pytest.mark.parametrize(
    ("env", "eval_return"),
    [("probes:Truncating", -3.0), pytest.param("host_probes:Endless", 3.0, marks=pytest.mark.slow)],
)
def test_evaluations_are_cut(env, eval_return):
    base = dataclasses.replace(HOST, env=env)
    how = {"eval_episodes": 3, "eval_envs": 2, "eval_max_steps": 3}
    table = sweep.run(base, {"gamma": [0.9]}, [0], **how)
    assert table["eval_return"].iloc[-1] == eval_return


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("host_probes:Raising", r"point 0 \(gamma=0.9\), seed 0: (.|\n)*out of fuel"),
        ("host_probes:Dying", r"point 0 \(gamma=0.9\), seed 0: its process"),
    ],
)
def test_a_trial_that_fails_is_named_and_the_others_continue(env, message):
    base = dataclasses.replace(HOST, env=env, total_timesteps=800)
    with pytest.raises(sweep.FailedError, match=message):
        sweep.run(base, {"gamma": [0.9]}, [0], eval_episodes=0)
    points = [{"env": env}, {"env": "host_probes:RewardByAction"}]
    groups = sweep.plan(base, points, [0, 1])
    trials = [trial for group in groups for trial in group.trials]
    steps = list(trial_pool.train(trials, sweep.SweepOptions(max_parallel=1, eval_episodes=0)))
    assert [step.failure.trial.number for step in steps if step.failure] == [0, 1]
    results = [step.result for step in steps if step.result]
    assert [trial.number for result in results for trial in result.trials] == [2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, {"algorithm": "a3c", "own": WorkerConfig(num_workers=2)}])
def test_a_trial_that_diverges_ends_no_other_in_processes(how):
    """Pendulum refuses actions of NaN: the trial ends where it is."""
    num_envs = 1 if how else 4
    base = dataclasses.replace(HOST, env="gymnasium/Pendulum-v1", total_timesteps=320)
    base = dataclasses.replace(base, num_envs=num_envs)
    axes = {"learning_rate": [1e37, 1e-3]}
    table = sweep.run(base, axes, [0, 1], **how, eval_episodes=2)
    assert not table.duplicated(["trial", "env_steps"]).any()
    last = table.groupby("trial").last()
    assert last["diverged"].tolist() == [True, True, False, False]
    assert last["eval_return"].isna().tolist() == [True, True, False, False]
    assert last["env_steps"].tolist()[2:] == [320, 320]


@pytest.mark.slow
def test_a3c_is_swept_in_processes():
    base = dataclasses.replace(BASE, num_envs=1, total_timesteps=400)
    axes = {"num_workers": [1, 2], "learning_rate": [1e-3, 1e-2]}
    table = sweep.run(base, axes, [0], algorithm="a3c", max_parallel=2, eval_episodes=5)
    assert set(table["trial"]) == {0, 1, 2, 3}
    assert {"staleness_mean", "staleness_max"} < set(table)
    last = table.groupby("trial").last()
    assert last["env_steps"].tolist() == [400] * 4
    assert last["eval_return"].notna().all()
    assert last["num_workers"].tolist() == [1, 1, 2, 2]


def test_processes_are_as_many_as_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    (trial,) = sweep.plan(HOST, [{"gamma": 0.9}], [0])[0].trials
    assert trial_pool.usual_parallel(trial) == 8
    config = dataclasses.replace(HOST, vectorization="async")
    assert trial_pool.usual_parallel(trial._replace(config=config)) == 2
    assert trial_pool.usual_parallel(trial._replace(own=(WorkerConfig(num_workers=3),))) == 2
    assert trial_pool.usual_parallel(trial._replace(own=(WorkerConfig(num_workers=30),))) == 1


def test_an_environment_object_that_cannot_be_sent_is_refused():
    lock = threading.Lock()
    env = lambda: lock  # noqa: E731
    (trial,) = sweep.plan(HOST, [{"gamma": 0.9}], [0])[0].trials
    trial = trial._replace(config=dataclasses.replace(HOST, env=env))
    with pytest.raises(TypeError, match="name it as"):
        next(trial_pool.train([trial], sweep.SweepOptions()))
