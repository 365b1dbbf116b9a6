"""The READMEs' Python examples run as written, from top to bottom; what is installed is whole."""

import re
import textwrap
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def blocks(path="README.md"):
    return re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("form", ["(Environment)", "(gymnasium.Env)"])
def test_your_own_environment(form):
    """Each of the two is complete by itself."""
    (block,) = (block for block in blocks() if form in block)
    names = {}
    exec(block, names)
    assert names["metrics"].episodic_return[-1] > 0.9  # the random walk is no longer random


@pytest.mark.slow
def test_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    run, stop, function, in_jax, on_host, own, simulated, sweep, search = blocks()
    exec(run, names)
    run = names["run"]
    assert run.status == "completed"
    assert run.env_steps == [200_064] * 4  # whole rollouts
    assert set(run.metrics["seed"]) == {0, 1, 2, 3}
    assert run.summary["final_return"]["mean"] > 100
    assert names["policy"](np.zeros(4), jax.random.key(0)) in (0, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "curve.png"}

    exec(stop, names)
    run = names["run"]
    assert run.status == "stopped"
    assert run.env_steps[0] < run.config.total_timesteps
    assert run.metrics.groupby("seed")["episodic_return"].last().min() > 100

    exec(function, names)
    assert names["state"].learner.updates == names["config"].num_updates
    assert names["states"].learner.updates.shape == (3,)
    assert names["action"] in (0, 1)

    for block in (in_jax, on_host):
        exec(block, names)
        assert names["metrics"].episodic_return[-1] > 0.9

    exec(own, names)
    assert set(names["metrics"].losses) == {"loss", "policy_loss", "value_loss", "error"}
    assert "LayerNorm_0" in str(names["state"].learner.params)

    exec(simulated, names)
    assert names["metrics"].extra["staleness_mean"][-1] > 8
    assert 0 < names["metrics"].extra["cosine"][-1] <= 1

    exec(sweep, names)
    assert len(names["finals"]) == 50
    assert names["table"].groupby(["learning_rate", "num_steps"])["seed"].nunique().eq(5).all()

    exec(search, names)
    assert set(names["found"].best) == {"learning_rate", "num_steps"}
    assert len(names["found"].sentences) == 2


@pytest.mark.slow
def test_examples_of_experiments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    parameters, lines, save = map(textwrap.dedent, blocks("experiments/README.md"))
    exec(parameters, names)
    env_state = names["run"].state["actor"]["env_state"]
    drawn = env_state["params"]["length"]
    assert len(np.unique(drawn)) == drawn.size
    exec(lines, names)
    written = (tmp_path / "run.txt").read_text().splitlines()
    assert len(written) == len(names["run"].metrics) + len(names["run"].seeds) + 1
    assert written[-1] == "completed"
    exec(save, names)
    assert (names["states"].learner.updates == names["config"].num_updates).all()
    assert not names["problems"]


@pytest.mark.parametrize("path", ["README.md", "experiments/README.md"])
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / path).read_text())
    assert links
    assert all(((ROOT / path).parent / link).exists() for link in links)


def test_programs_are_listed():
    text = (ROOT / "experiments" / "README.md").read_text()
    programs = (path.name for path in (ROOT / "experiments").glob("*.py"))
    assert [name for name in programs if f"`{name}`" not in text] == []


def test_every_package_is_installed():
    """Also where the source tree is not there: `find` takes folders that say that they are one."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert setuptools["packages"] == {"find": {"include": ["rljax*"]}}
    assert all((path.parent / "__init__.py").exists() for path in ROOT.glob("rljax/**/*.py"))
