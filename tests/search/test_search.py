"""Whole searches: bits, programs, budgets, files, processes, and what they say at the end."""

import dataclasses
import json
import logging
import shutil

import jax
import numpy as np
import pandas as pd
import pytest
import tiny

from rljax import presets, sweep
from rljax.config import WorkerConfig
from rljax.runs import settings
from rljax.search import axes, brackets, directory, training, verdict
from rljax.search.options import SearchOptions
from rljax.sweep import population
from rljax.utils import pytrees

BASE = tiny.CONFIG  # 20 rows
RATES = {"learning_rate": sweep.log(1e-3, 3e-1), "ent_coef": [0.0, 0.01]}
HOW = dict(seeds=range(3), eta=2, rungs=3, max_parallel=8, eval_episodes=2, fresh_seeds=3)
BUDGET = 30_000  # 24 points, with as much slack


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = tmp_path_factory.mktemp("searches") / "search"
    return path, sweep.search(BASE, RATES, BUDGET, run_dir=path, **HOW)


def test_brackets_keep_to_their_budget(found):
    _, result = found
    summary = result.summary
    assert summary["status"] == "completed"
    assert 0.4 * BUDGET < summary["env_steps"] <= BUDGET
    taken = sum(rung["env_steps"] for b in summary["brackets"] for rung in b["rungs"])
    assert summary["env_steps"] == taken
    rows = result.table.groupby("trial")["env_steps"].max()
    assert rows.sum() == taken
    for bracket in summary["brackets"]:
        points = bracket["points"]
        for rung, share in zip(bracket["rungs"], (0.25, 0.5, 1.0)):
            assert rung["share"] == share
            assert rung["points"] == points
            assert rung["kept"] >= -(-points // 2) or share == 1.0
            assert rung["by_interval"] == max(0, rung["kept"] - -(-points // 2))
            points = rung["kept"]


def test_the_table_is_a_sweep_s(found):
    _, result = found
    table = result.table
    assert list(table)[:5] == ["trial", "point", "seed", "learning_rate", "ent_coef"]
    assert (
        table.groupby("point")["seed"].unique().map(list).tolist()
        == [[0, 1, 2]] * (result.summary["points"])
    )
    lengths = table.groupby("trial").size()
    assert set(lengths) == {5, 10, 20}
    assert table.groupby("trial")["env_steps"].apply(lambda x: x.is_monotonic_increasing).all()
    alone = sweep.run(result.config, [{}], range(3), eval_episodes=0)
    rows = table[table["point"] == result.summary["ranking"][0]["point"]]
    for name in ("episodic_return", "loss", "grad_norm"):
        np.testing.assert_allclose(rows[name], alone[name], rtol=2e-3, atol=2e-4)


def test_the_same_again(found):
    _, result = found
    again = sweep.search(BASE, RATES, BUDGET, **HOW)
    pd.testing.assert_frame_equal(again.table, result.table)
    pd.testing.assert_frame_equal(again.fresh, result.fresh)
    assert again.summary["ranking"] == result.summary["ranking"]


def trial_rows(table, point):
    return table[table["point"] == point].drop(columns=["trial", "point", "eval_return"])


def test_a_survivor_is_a_run_in_which_nothing_ends():
    """To the bit, with programs of one size. A search without halving trains the same points."""
    how = dict(HOW, fresh_seeds=0, exact=True, bracket=8)
    with tiny.optimized():
        halved = sweep.search(BASE, RATES, 8_000, **how)
        whole = sweep.search(BASE, RATES, 8 * 3 * 320, **how | dict(scheduler="none"))
    assert halved.summary["points"] >= 8
    survivors = [x["point"] for x in halved.summary["ranking"] if x["share"] == 1]
    assert len(survivors) >= 2
    for point in (p for p in survivors if p < 8):
        mine, theirs = trial_rows(halved.table, point), trial_rows(whole.table, point)
        pd.testing.assert_frame_equal(
            mine.reset_index(drop=True), theirs.reset_index(drop=True), check_exact=True
        )


def test_sizes_of_batches_differ_by_rounding():
    """Ten updates from the same state: 1e-5 of each number, or 1e-6."""
    (group,) = sweep.plan(BASE, [{"gamma": g} for g in (0.9, 0.95, 0.99)], range(4))
    options = sweep.SweepOptions(max_parallel=8)

    def trained(stretch, done=()):
        steps = population.train_stretch(group.trials, options, done, stretch)
        return sweep.results.joined([step.held for step in steps if step.held])

    with tiny.optimized():
        begun = trained(sweep.results.Stretch(5, None))
        two = begun.take([3, 7])
        done = {x.number for x in group.trials} - {3, 7}
        large = trained(sweep.results.Stretch(15, two, one_size=True), done)
        small = trained(sweep.results.Stretch(15, two), done)
    assert len(large.metrics.updates) == len(small.metrics.updates) == 15
    apart = 0
    for a, b in zip(jax.tree.leaves(large.states), jax.tree.leaves(small.states)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        apart += a.size
    assert apart > 100


def compiled(caplog, **how):
    """Names of the programs that a search compiles for training."""
    caplog.clear()
    base = dataclasses.replace(BASE, num_steps=1, total_timesteps=how.pop("steps"))
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        sweep.search(base, RATES, how.pop("budget"), **HOW | how)
    found = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Compiling")]
    return [text for text in found if "advance" in text or "init" in text]


@pytest.mark.slow
def test_programs_do_not_grow_with_the_rungs(caplog):
    how = dict(fresh_seeds=0, eval_episodes=0)
    assert len(compiled(caplog, steps=640, budget=40_000, rungs=5, **how)) <= 3
    assert len(compiled(caplog, steps=640, budget=40_000, rungs=3, **how)) == 0


def test_what_is_judged_on_fresh_seeds(found):
    path, result = found
    judged = result.summary["points_judged"]
    assert set(judged) == {"winner", "runner-up", "before"}
    best = result.summary["ranking"][0]
    assert judged["winner"]["settings"] == best["settings"] == result.best
    assert judged["winner"]["search"]["mean"] == pytest.approx(best["returns"])
    assert judged["before"]["settings"] == {"learning_rate": BASE.learning_rate, "ent_coef": 0.0}
    assert sorted(result.fresh["seed"].unique()) == [3, 4, 5]
    for entry in judged.values():
        assert len(entry["fresh"]["per_seed"]) == 3
    optimism = judged["winner"]["search"]["mean"] - judged["winner"]["fresh"]["mean"]
    assert judged["winner"]["optimism"] == pytest.approx(optimism)
    rows = result.fresh[result.fresh["point"] == 0].groupby("seed")["episodic_return"]
    last = rows.apply(lambda x: x.iloc[-2:].mean())  # a tenth; each has as many episodes
    np.testing.assert_allclose(judged["winner"]["fresh"]["per_seed"], last, rtol=0.02)
    assert len(result.sentences) == 2
    assert "3 and 3 seeds are too few" in result.sentences[0]
    assert result.preset in (path / "preset.txt").read_text()


def pasted(preset, monkeypatch):
    """What `presets.preset` gives with this entry."""
    lines = [line for line in preset.splitlines() if not line.startswith("#")]
    entries = eval("{" + "".join(lines) + "}")
    monkeypatch.setattr(presets, "PRESETS", entries)
    return [presets.preset(*key) for key in entries]


def test_the_preset_is_the_winner(found, monkeypatch):
    _, result = found
    assert pasted(result.preset, monkeypatch) == [result.config]


def test_a_preset_of_entries_and_own_options(monkeypatch):
    """Of dicts the whole; an algorithm's own options are no fields of `Config`."""
    base = dataclasses.replace(presets.base("a3c"), env="CartPole-v1", num_steps=7)
    given = {"env_params.max_steps_in_episode": [50], "num_workers": [3], "gamma": [0.5]}
    own = (WorkerConfig(),)
    checked = axes.checked(given, base, own)
    shared = dict(algorithm="a3c", num_seeds=3, run_dir=None)
    options = sweep.SweepOptions(**shared)
    asked = brackets.Asked(base, options, SearchOptions(budget=1), own, checked)
    state = brackets.State(asked, None)
    state.points = [axes.point_at(checked, dict.fromkeys(given, 0.5))]
    text = verdict.preset(state, 0)
    (config,) = pasted(text, monkeypatch)
    wanted = dict(env_params={"max_steps_in_episode": 50}, gamma=0.5)
    assert config == dataclasses.replace(base, **wanted)
    assert settings.start_from("a3c", "CartPole-v1").own == (WorkerConfig(num_workers=3),)
    assert verdict._before(asked)["env_params.max_steps_in_episode"] is axes.MISSING
    assert verdict.BEFORE not in verdict.chosen(state)


def killed_at(monkeypatch, number):
    """Kills a search at its event of this number, before it is written."""
    from rljax.search.store import Store

    write, count = Store.event, iter(range(1000))

    def event(store, told):
        if next(count) == number:
            raise KeyboardInterrupt
        write(store, told)

    monkeypatch.setattr(Store, "event", event)


@pytest.mark.parametrize(
    "number", [1, 3, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 2, 5))]
)
def test_killed_and_resumed_it_has_the_same_table(found, tmp_path, monkeypatch, number):
    path, result = found
    again = tmp_path / "search"
    with monkeypatch.context() as patch:
        killed_at(patch, number)
        with pytest.raises(KeyboardInterrupt):
            sweep.search(BASE, RATES, BUDGET, run_dir=again, quiet=True, **HOW)
    assert json.loads((again / "search.json").read_text())["status"] == "interrupted"
    with open(again / "search.jsonl", "ab") as file:
        file.write(b'{"event": "rung", "bra')  # killed while writing
    resumed = sweep.search(BASE, RATES, BUDGET, run_dir=again, quiet=True, **HOW)
    assert (again / "results.csv").read_bytes() == (path / "results.csv").read_bytes()
    assert (again / "search.jsonl").read_bytes() == (path / "search.jsonl").read_bytes()
    assert resumed.summary["points_judged"] == result.summary["points_judged"]
    assert not list((again / "rungs").iterdir())


def test_interrupted_among_the_fresh_seeds(found, tmp_path, monkeypatch):
    _, result = found
    again = tmp_path / "search"
    with monkeypatch.context() as patch:
        patch.setattr(training, "to_the_end", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sweep.search(BASE, RATES, BUDGET, run_dir=again, quiet=True, **HOW)
    resumed = sweep.search(BASE, RATES, BUDGET, run_dir=again, quiet=True, **HOW)
    assert resumed.summary["points_judged"] == result.summary["points_judged"]


def test_a_finished_search_is_left_alone(found, capsys):
    path, result = found
    before = {x: x.read_bytes() for x in path.iterdir() if x.is_file()}
    again = sweep.search(BASE, RATES, BUDGET, run_dir=path, quiet=False, **HOW)
    assert "is complete: there is nothing left to do" in capsys.readouterr().out
    assert again.best == result.best
    assert {x: x.read_bytes() for x in path.iterdir() if x.is_file()} == before


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("search.jsonl", b"nonsense\n", "search.jsonl is damaged"),
        ("search.jsonl", b'{"event": "rung"}\n', "search.jsonl is damaged"),
        ("search.jsonl", b"[1]\n", "a line is no object"),
        ("config.json", b'{"config": {}, "run": {}}', "holds no search"),
    ],
)
def test_damaged_files(found, tmp_path, name, data, message):
    path, _ = found
    copy = shutil.copytree(path, tmp_path / "search")
    (copy / "search.json").unlink()
    (copy / name).write_bytes(data)
    with pytest.raises(ValueError, match=message) as told:
        sweep.search(BASE, RATES, BUDGET, run_dir=copy, **HOW)
    assert len(str(told.value).splitlines()) == 1


def test_the_directory_of_another_search(found):
    path, _ = found
    with pytest.raises(ValueError, match="the search has budget = 30000, not 40000"):
        sweep.search(BASE, RATES, 40_000, run_dir=path, **HOW)
    other = dataclasses.replace(BASE, gamma=0.5)
    with pytest.raises(ValueError, match=r"the search has gamma = 0\.99, not 0\.5"):
        sweep.search(other, RATES, BUDGET, run_dir=path, **HOW)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(budget=100), "budget = 100: must be at least .* for a bracket of 2 points"),
        (dict(budget="5X"), "budget = 5X: must be a number of environment steps, such as 50M"),
        (dict(seeds=[0, 1]), "num_seeds = 2: must be at least 3 for an interval"),
        (dict(seeds=[0, 2, 4]), "must be consecutive"),
        (dict(scheduler="halvin"), "unknown scheduler 'halvin': did you mean halving"),
        (dict(objective="last"), "unknown objective 'last'"),
        (dict(confidence=1.0), "confidence = 1.0: must be at least 0.5 and below 1"),
        (dict(trial_steps=400), "trial_steps = 400: must be at most total_timesteps, 320"),
        (dict(rungs=9), "take fewer rungs"),
        (dict(rungs=1000), "rungs = 1000: must be at most 20"),
        (dict(seeds=range(2**32 - 4, 2**32 - 1)), "the last fresh seed must be below"),
        (dict(scheduler="hyperband", budget=2_500), "for 3 brackets like"),
        (dict(trial_steps=10), "would have no row of metrics"),
        (
            dict(sampler="evolution", envs=("probes:RewardByAction", "probes:Truncating")),
            "references: evolution needs them",
        ),
        (dict(sampler="os:getcwd"), "sampler"),
        (dict(eta=1), "eta = 1: must be at least 2"),
        (dict(fresh_seeds=1), "fresh_seeds = 1: must be 0 or at least 3"),
        (dict(envs=("a", "a")), "must all be different"),
        (dict(references=("x=1:2",)), "unknown environment 'x'"),
    ],
)
def test_bad_options(tmp_path, changes, message):
    how = HOW | dict(budget=BUDGET) | changes
    with pytest.raises((ValueError, TypeError), match=message):
        sweep.search(BASE, RATES, how.pop("budget"), run_dir=tmp_path / "run", **how)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("scheduler", "sampler"),
    [
        ("hyperband", "evolution"),
        ("none", "latin-hypercube"),
        pytest.param("hyperband", "latin-hypercube", marks=pytest.mark.slow),
        pytest.param("none", "evolution", marks=pytest.mark.slow),
    ],
)
def test_schedulers_and_samplers(scheduler, sampler):
    how = HOW | dict(scheduler=scheduler, sampler=sampler, fresh_seeds=0, bracket=4)
    summary = sweep.search(BASE, RATES, BUDGET, **how).summary
    assert summary["env_steps"] <= BUDGET
    numbers = [len(bracket["rungs"]) for bracket in summary["brackets"]]
    wanted = [1] if scheduler == "none" else [3, 2, 1]
    assert numbers == (wanted * len(numbers))[: len(numbers)]
    assert len(numbers) >= 3


@pytest.mark.slow
def test_static_and_conditional_axes():
    given = {
        "learning_rate": sweep.log(1e-3, 1e-1),
        "num_steps": [2, 4],
        "core": ["none", "gru"],
        "core_size": sweep.When([4, 6], "core", ["gru"]),
    }
    result = sweep.search(BASE, given, 8_000, **HOW | dict(fresh_seeds=0))
    table = result.table
    assert set(table["num_steps"]) == {2, 4}
    assert set(table[table["core"] == "none"]["core_size"]) == {BASE.core_size}
    assert set(table[table["core"] == "gru"]["core_size"]) <= {4, 6}


@pytest.mark.slow
def test_several_environments():
    envs = ("probes:RewardByAction", "probes:Truncating")
    how = HOW | dict(envs=envs, fresh_seeds=3)
    result = sweep.search(BASE, RATES, 2 * BUDGET, **how)
    assert set(result.table["env"]) == set(envs)
    assert result.table.groupby("point")["env"].nunique().eq(2).all()
    judged = result.summary["points_judged"]["winner"]
    assert 0 <= judged["fresh"]["mean"] <= 1  # ranks
    assert "optimism" not in judged
    assert len(result.preset.splitlines()) == 2 + 2
    assert result.summary["sensitivity"]["tuned"] >= result.summary["sensitivity"]["fixed"]
    assert len(result.summary["ranking"][0]["returns"]) == 2


def test_trials_can_end_before_their_schedules():
    how = HOW | dict(trial_steps=160, fresh_seeds=3)
    result = sweep.search(BASE, RATES, BUDGET, **how)
    assert result.table["env_steps"].max() == result.fresh["env_steps"].max() == 160


def test_a_population_that_diverges_is_the_lowest():
    given = {"learning_rate": [1e-2, 1e30]}
    base = dataclasses.replace(BASE, max_grad_norm=1e30)
    result = sweep.search(base, given, BUDGET, **HOW | dict(fresh_seeds=0, sampling_seed=1))
    assert result.best == {"learning_rate": 1e-2}
    assert result.summary["trials_without_return"] > 0


HOST = dataclasses.replace(BASE, env="host_probes:RewardByAction")


@pytest.mark.slow
def test_in_processes_nothing_waits(monkeypatch):
    """The trials of the next bracket begin while the last of one are trained."""
    begun = []
    take = directory.Follower.take

    def note(follower, step):
        state = follower.state
        begun.append(sum(not bracket.is_done for bracket in state.brackets))
        take(follower, step)

    monkeypatch.setattr(directory.Follower, "take", note)
    how = HOW | dict(sampler="evolution", bracket=2, max_parallel=2, rungs=2, slack=0)
    result = sweep.search(HOST, RATES, 14_000, **how)
    assert max(begun) == 2
    assert len(result.summary["brackets"]) >= 3
    assert result.summary["env_steps"] <= 14_000
    assert set(result.table.groupby("trial").size()) == {10, 20}


@pytest.mark.slow
def test_a3c_is_searched():
    given = {"learning_rate": sweep.log(1e-3, 1e-1), "num_workers": [1, 2]}
    base = dataclasses.replace(BASE, num_envs=1)
    how = HOW | dict(algorithm="a3c", rungs=2, max_parallel=1, fresh_seeds=0, slack=0)
    result = sweep.search(base, given, 5_000, **how)
    assert result.summary["status"] == "completed"
    assert "staleness_mean" in result.table
    assert set(result.table.groupby("trial").size()) == {40, 80}


@pytest.mark.slow
def test_where_no_episode_ends():
    """There is no winner, and no score above those of later trials."""
    base = dataclasses.replace(BASE, env="Pendulum-v1")  # 80 of 200 steps of an episode
    with pytest.raises(sweep.FailedError, match="no trial has a return"):
        sweep.search(base, {"gamma": [0.9, 0.95]}, BUDGET, **HOW)


@pytest.mark.slow
def test_in_processes_fresh_seeds_are_trained_as_far():
    how = HOW | dict(trial_steps=160, rungs=1, scheduler="none", bracket=2, max_parallel=2)
    result = sweep.search(HOST, {"gamma": [0.9, 0.95]}, 1_000, **how)
    assert result.table["env_steps"].max() == result.fresh["env_steps"].max() == 160
    assert result.fresh.groupby("trial")["eval_return"].last().notna().all()


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_in_processes_it_is_resumed(tmp_path, monkeypatch, number):
    """Episodes begin anew, so that returns may differ; the points do not."""
    how = HOW | dict(rungs=2, max_parallel=2, run_dir=tmp_path / "search", quiet=True, slack=0)
    with monkeypatch.context() as patch:
        killed_at(patch, number)
        with pytest.raises(KeyboardInterrupt):
            sweep.search(HOST, RATES, 6_000, **how)
    result = sweep.search(HOST, RATES, 6_000, **how)
    whole = sweep.search(HOST, RATES, 6_000, **how | dict(run_dir=tmp_path / "whole"))
    assert result.summary["points"] == whole.summary["points"]
    for column in ("learning_rate", "ent_coef"):
        one, other = (x.table.groupby("point")[column].first() for x in (result, whole))
        assert one.tolist() == other.tolist()
    assert set(result.table.groupby("trial").size()) == {10, 20}


@pytest.mark.slow
def test_trials_that_fail_are_the_lowest():
    base = dataclasses.replace(HOST, env="host_probes:Raising", total_timesteps=1280)
    with pytest.raises(sweep.FailedError, match="out of fuel"):
        sweep.search(base, {"gamma": [0.9, 0.95]}, 20_000, **HOW | dict(rungs=2))


def test_keys_are_put_back():
    tree = {"a": jax.random.key(3), "b": np.ones(2), "c": jax.random.split(jax.random.key(1), 2)}
    plain, keys = pytrees.without_keys(tree)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(plain))
    again = pytrees.with_keys(plain, keys)
    for name in ("a", "c"):
        assert (jax.random.key_data(again[name]) == jax.random.key_data(tree[name])).all()
