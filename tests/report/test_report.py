"""Pages about runs and sweeps: what they say is what the tables hold."""

import json
import math
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import tiny
from small_runs import TIMES, contents, train

import rljax
from rljax import analysis, report, sweep
from rljax.cli import report as report_cli
from rljax.cli import sweep as sweep_cli
from rljax.loggers import tables
from rljax.report import animation, charts, parts, recipes
from rljax.report.charts import Line
from rljax.report.html import document, tag
from rljax.runs import directory
from rljax.runs import settings as run_settings

pytestmark = pytest.mark.usefixtures("undrawn")
DOC = "Reports.\n"
VOID = {"br", "img", "input", "link", "meta", "source"}


def main(*flags):
    return report_cli.main(DOC, [*map(str, flags)])


@pytest.fixture(scope="module")
def sweep_dir(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("sweeps") / "sweep"
    flags = "--axis learning_rate=1e-3,1e-2 --axis ent_coef=0,0.01 --num-seeds 2"
    flags += " --env probes:RewardByAction --num-envs 4 --num-steps 4 --hidden-sizes 8"
    asked = f"{flags} --total-timesteps 640 --eval-episodes 2 --run-dir {run_dir} --quiet".split()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rljax.sweep.report._draw", lambda *_: [])
        assert sweep_cli.main("Sweeps.", asked) == 0
    return run_dir


class Page(HTMLParser):
    """A page's elements and texts; asserts that it is well formed and loads nothing."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.scripts, self.tags = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, name, attributes):
        self.tags.append((name, dict(attributes)))
        for key, value in attributes:
            if key in ("src", "href", "srcset"):
                assert value.startswith(("data:", "#")), value
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, text):
        if self.open and self.open[-1] == "script":
            self.scripts.append(text)
        elif self.open and self.open[-1] != "style":
            self.texts.append(text.strip())

    @property
    def charts(self):
        found = [json.loads(text) for text in self.scripts if text.startswith("{")]
        for chart in found:
            for line in chart["lines"]:
                line["x"] = chart["xs"][line["x"]]
        return found


def test_curves_are_those_of_the_tables(run_dir):
    page = Page(report.page([run_dir], animated=False))
    metrics = tables.read_metrics(run_dir)
    first = page.charts[0]["lines"]
    assert [line["label"] for line in first] == ["IQM and 95% interval", "seed 5", "seed 6"]
    for line, (_, rows) in zip(first[1:], metrics.groupby("seed")):
        known = rows["episodic_return"].ffill()
        assert line["x"] == rows["env_steps"].tolist()
        np.testing.assert_allclose(np.array(line["y"], float), known, rtol=1e-5)
    entropy = [chart for chart in page.charts if len(chart["lines"]) == 1]
    means = metrics.pivot(index="seed", columns="env_steps", values="entropy").mean()
    found = [line["y"] for chart in entropy for line in chart["lines"]]
    assert any(np.allclose(y, means, rtol=1e-5) for y in found if None not in y)
    text = (run_dir / "evaluations.csv").read_text().splitlines()[1:]
    wanted = [float(line.split(",")[4]) for line in text if line.startswith("6,")]
    of_6 = page.charts[1]["lines"][2]
    assert of_6["label"] == "seed 6"
    np.testing.assert_allclose(of_6["y"], wanted, rtol=1e-5)


def test_the_figures_of_the_summary_are_on_the_page(run_dir):
    page = Page(report.page([run_dir], animated=False))
    summary = json.loads((run_dir / "summary.json").read_text())
    final = summary["final_return"]
    for number in (final["iqm"], *final["ci95"], *final["per_seed"]):
        assert any(f"{number:,.2f}" in text for text in page.texts)
    for text in ("completed", f"{summary['steps_per_second']:,.0f}", "4 greedy episodes of each"):
        assert any(text in found for found in page.texts)
    for name, version in json.loads((run_dir / "config.json").read_text())["versions"].items():
        assert {name, version} <= {*page.texts}
    assert "A2C on probes:RewardByAction" in page.texts


def test_the_program_on_the_page_repeats_the_run(run_dir):
    record = directory.read_record(run_dir)
    page = Page(report.page([run_dir], animated=False))
    program = recipes.python(record)
    assert program.strip() in page.texts
    names = {}
    exec(program, names)
    again, before = names["run"].metrics, tables.read_metrics(run_dir)
    assert again.drop(columns=TIMES).equals(before.drop(columns=TIMES))


@pytest.mark.parametrize(
    ("algorithm", "asked"),
    [
        ("a2c", dict(env="CartPole-v1")),
        ("a2c", dict(env="CartPole-v1", preset="none", max_grad_norm=math.inf, gamma=0.9)),
        ("a2c", dict(env="Catch-bsuite", env_kwargs={"rows": 8, "x": math.inf}, seed=3)),
        ("a2c", dict(env="CartPole-v1", preset="CartPoleNoVel-v1", wrappers=("mask_velocity",))),
        ("a3c", dict(env="CartPole-v1", num_workers=3, max_staleness=7, log_interval=11)),
    ],
)
def test_the_program_has_the_settings_of_the_run(algorithm, asked, monkeypatch):
    def resolved(algorithm, env=None, preset=None, **changes):
        found = run_settings.start_from(algorithm, env, preset).replace(changes)
        options = found.options.with_log_interval(found.config)
        return run_settings.record(found._replace(options=options))

    wanted = json.loads(json.dumps(_finite(resolved(algorithm, **asked))))
    monkeypatch.setattr(rljax, "train", resolved, raising=False)
    names = {}
    exec(recipes.python(wanted), names)
    assert json.loads(json.dumps(_finite(names["run"]))) == wanted


def _finite(tree):
    """As config.json has it."""
    from rljax.utils.atomic_io import json_bytes

    return json.loads(json_bytes(tree))


def test_settings_that_differ_stand_first(run_dir):
    record = directory.read_record(run_dir)
    changed = recipes.changed_settings(record)
    assert set(changed) == {
        *("env", "total_timesteps", "num_envs", "num_steps", "hidden_sizes", "learning_rate")
    } - {n for n, x in recipes.start(record).items() if x == record["config"][n]}
    page = Page(report.page([run_dir], animated=False))
    texts = page.texts
    assert texts.index("learning_rate") < texts.index("All other settings") < texts.index("gamma")
    assert "default" in texts  # there is no preset


def test_a_sweep(sweep_dir):
    page = Page(report.page([sweep_dir]))
    table = sweep.read(sweep_dir)
    finals = analysis.final_returns(table)
    cells = finals.groupby(["ent_coef", "learning_rate"])["final_return"].agg(analysis.iqm)
    for value in cells:
        assert f"{value:,.4g}" in page.texts
    best = analysis.rank(table).iloc[0]
    assert f"{best['iqm']:,.2f}" in page.texts
    assert "A2C on probes:RewardByAction: a sweep over learning_rate, ent_coef" in page.texts
    of_rate = next(chart for chart in page.charts if chart["names"])
    assert [name for _, name in of_rate["names"]] == ["0.001", "0.01"]
    trials = dict(zip(of_rate["lines"][0]["x"], of_rate["lines"][0]["y"]))
    assert len(of_rate["lines"][0]["y"]) == len(finals)
    assert set(trials) == {0.0, 1.0}


def test_points_that_are_no_grid_have_no_map(sweep_dir):
    told = report.sweeps.read(sweep_dir)
    assert report.sweeps._map(told, "learning_rate", "ent_coef") is not None
    table = told.metrics
    table["learning_rate"], table["ent_coef"] = table["trial"] / 7.0, table["trial"] / 9.0
    assert report.sweeps._map(told, "learning_rate", "ent_coef") is None


def test_several_runs_are_compared(run_dir, sweep_dir, tmp_path):
    train(tmp_path / "other", learning_rate=0.02, num_seeds=1, eval_every=0)
    page = Page(report.page([run_dir, tmp_path / "other", sweep_dir], animated=False))
    assert "Compared on probes:RewardByAction" in page.texts
    labels = [line["label"] for line in page.charts[0]["lines"]]
    assert labels == ["learning_rate = 0.01", "learning_rate = 0.02"]
    names = [attributes.get("href") for name, attributes in page.tags if name == "a"]
    ids = [attributes.get("id") for name, attributes in page.tags if name == "h2"]
    assert names == ["#run-0", "#run-1", "#run-2"]
    assert {"run-0", "run-1", "run-2"} <= {*ids}


def test_a_run_that_has_not_ended(run_dir, tmp_path):
    record = directory.read_record(run_dir)
    empty = directory.create(tmp_path / "empty", record, "metrics.csv")
    page = Page(report.page([empty]))
    assert "not ended" in page.texts
    assert any("has no whole checkpoint" in text or "Not drawn" in text for text in page.texts)


def test_a_run_that_diverged(tmp_path):
    """Its numbers are text in JSON, and its page tells so."""
    with pytest.warns(UserWarning, match="diverged"):
        train(tmp_path / "run", learning_rate=1e30, max_grad_norm=1e30)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["diverged"]
    page = Page(report.page([tmp_path / "run"], animated=False))
    assert "diverged" in page.texts
    for seed, update in summary["diverged"].items():
        assert any(f"{seed} diverged at update {update:,}" in text for text in page.texts)


def test_numbers_that_are_not_finite_are_dashes(run_dir, tmp_path):
    shutil.copytree(run_dir, tmp_path / "run")
    path = tmp_path / "run" / "summary.json"
    summary = json.loads(path.read_text())
    summary["final_return"] |= {"iqm": "nan", "ci95": ["nan", "nan"], "per_seed": ["nan", "inf"]}
    path.write_text(json.dumps(summary))
    page = Page(report.page([tmp_path / "run", run_dir], animated=False))
    assert {"-", "inf"} <= {*page.texts}


def test_seeds_that_ended_early_are_not_drawn_on(run_dir, tmp_path):
    """Where one seed has no more rows the statistics over seeds end."""
    shutil.copytree(run_dir, tmp_path / "run")
    path = tmp_path / "run" / "metrics.csv"
    rows = path.read_text().splitlines(keepends=True)
    kept = [row for row in rows if not row.startswith("6,") or int(row.split(",")[1]) <= 1600]
    path.write_text("".join(kept))
    page = Page(report.page([tmp_path / "run"], animated=False))
    together, fifth, sixth = page.charts[0]["lines"]
    assert together["x"][-1] == 1600
    assert None not in fifth["y"]
    assert sixth["y"][fifth["x"].index(1600)] is not None
    assert set(sixth["y"][fifth["x"].index(1600) + 1 :]) == {None}


def test_long_tables_are_thinned(run_dir):
    metrics = tables.read_metrics(run_dir)
    long = pd.concat(
        [metrics.assign(env_steps=metrics["env_steps"] + 10_000 * i) for i in range(20)]
    )
    line = parts.curve(long, "", column="entropy")
    assert len(line.x) == parts.MOST_POINTS < long["env_steps"].nunique()
    assert line.x[[0, -1]].tolist() == [long["env_steps"].min(), long["env_steps"].max()]


def test_a_sweep_that_has_just_begun(sweep_dir, tmp_path):
    shutil.copytree(sweep_dir, tmp_path / "sweep")
    (tmp_path / "sweep" / "results.csv").write_bytes(b"")
    (tmp_path / "sweep" / "sweep.json").unlink()
    assert "No trial has ended." in Page(report.page([tmp_path / "sweep"])).texts


def test_environments_of_a_sweep_are_told_apart(sweep_dir):
    told = report.sweeps.read(sweep_dir)
    table = told.metrics
    table.insert(3, "env", ["a" if point < 2 else "b" for point in table["point"]])
    page = Page(document("t", report.sweeps.sections(told)))
    assert [page.texts.count(name) for name in ("a", "b", "Ranking")] == [1, 1, 2]


def test_command_lines_have_no_run_directory():
    record = {"algorithm": "sweep", "run": {}, "config": {}}
    told = [
        ("python a2c.py --run-dir 'my runs/a' --seed 3", ["python a2c.py --seed 3"]),
        ("python /x/experiments/a2c.py --run-dir=a", ["python /x/experiments/a2c.py"]),
        ("python -m ipykernel_launcher -f x.json", []),
        (None, []),
    ]
    for command, wanted in told:
        found = recipes.again({**record, "command_line": command})
        assert [x.text for part in found for x in part.iter("code")] == wanted


def test_a_run_of_another_version_keeps_its_page(run_dir, tmp_path):
    shutil.copytree(run_dir, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    record = json.loads(path.read_text())
    record["run"]["preset"] = "Removed-v0"
    path.write_text(json.dumps(record))
    page = Page(report.page([tmp_path / "run"], animated=False))
    assert any("are of another version" in text for text in page.texts)
    assert page.charts


def test_the_agent_is_shown(run_dir):
    page = Page(report.page([run_dir]))
    (image,) = [attributes for name, attributes in page.tags if name == "img"]
    assert image["src"].startswith("data:image/gif;base64,R0lGOD")
    played = rljax.load(run_dir).pictures(max_steps=animation.MOST_STEPS)
    assert image["alt"] == f"seed 5, greedy: {len(played[0]) - 1} steps, return {played[1][0]:.2f}"


def test_a_film_is_as_small_as_it_must_be():
    from PIL import Image

    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)) for _ in range(70)]
    whole, small = animation._small_gif(noise, 10**9), animation._small_gif(noise, 50_000)
    assert len(small) <= 50_000 < len(whole)


def test_what_is_not_finite_interrupts_a_line():
    x = np.arange(5.0)
    y = np.array([1.0, 2.0, np.nan, 4.0, 5.0])
    lone = np.array([np.nan, np.nan, 3.0, np.nan, np.nan])
    lines = [Line("a", x, y, y - 1, y + 1), Line("b", x, lone), Line("c", x, x * np.nan)]
    text = document("t", charts.chart("t", [*lines, Line("d", x[:0], x[:0])]))
    assert not re.search(r"nan|inf\b", re.sub(r"<(style|script)>.*?</\1>", "", text, flags=re.S))
    page = Page(text)
    paths = {a["data-line"]: a for name, a in page.tags if name == "path" and "data-line" in a}
    assert paths["0"]["d"].count("M") == 2
    assert "dots" in paths["1"]["class"]
    assert paths["2"]["d"] == ""
    assert page.charts[0]["lines"][0]["y"] == [1.0, 2.0, None, 4.0, 5.0]


def test_labels_are_text():
    evil = "</script><script>alert(1)</script><b>&amp;"
    line = Line(evil, np.arange(3.0), np.arange(3.0))
    page = Page(document(evil, charts.chart(evil, [line, line]), tag("p", evil)))
    assert len(page.scripts) == 2
    assert not [name for name, _ in page.tags if name == "b"]
    assert page.charts[0]["lines"][0]["label"] == evil
    assert page.texts.count(evil) == 5  # the title, the caption, two buttons and the paragraph


def test_a_file_is_written(run_dir, tmp_path, capsys, monkeypatch):
    assert main(run_dir, "--no-animation", "--output", tmp_path / "a.html") == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/a.html: ")
    assert (tmp_path / "a.html").read_text().startswith("<!doctype html>")
    monkeypatch.chdir(tmp_path)
    assert main(run_dir, run_dir, "--no-animation") == 0
    assert (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_a_search(tmp_path, capsys):
    given, how = {"learning_rate": sweep.log(1e-3, 1e-1)}, dict(eval_episodes=0, fresh_seeds=3)
    path = tmp_path / "search"
    how |= dict(run_dir=path, seeds=range(3), eta=2, quiet=True)
    found = sweep.search(tiny.CONFIG, given, 8_000, **how)
    page = report.page([path], animated=False)
    for words in ("a search of learning_rate", "Judged on fresh seeds", "optimism", "Sensitivity"):
        assert words in page
    assert parts.number(found.summary["points_judged"]["runner-up"]["fresh"]["mean"]) in page
    (path / "search.json").write_text('{"ranking": [{"share": 1}]}')
    assert main(path) == 2
    assert "holds a damaged file" in capsys.readouterr().err
    (path / "search.json").unlink()  # it was killed
    assert "not ended" in report.page([path], animated=False)


def test_bad_input(run_dir, tmp_path, capsys, monkeypatch):
    before = contents(run_dir)
    damaged = tmp_path / "damaged"
    directory.create(damaged, directory.read_record(run_dir), "metrics.csv")
    (damaged / "summary.json").write_text('{"final_return": {"mean": 1}}')
    huge = tmp_path / "huge"
    directory.create(huge, directory.read_record(run_dir), "metrics.csv")
    (huge / "summary.json").write_text(json.dumps({"steps_per_second": 10**400}))
    for flags, words in (
        ([], "must name at least one run directory"),
        ([tmp_path / "none"], "is no directory"),
        ([tmp_path], "is no run directory"),
        ([run_dir, "--output", "page.pdf"], "must end in .html"),
        ([damaged], "holds a damaged file"),
        ([huge], "holds a damaged file"),
    ):
        assert main(*flags) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    monkeypatch.setattr(report, "LARGEST", 1_000)
    assert main(run_dir, "--no-animation") == 2
    assert "give fewer" in capsys.readouterr().err
    assert contents(run_dir) == before
