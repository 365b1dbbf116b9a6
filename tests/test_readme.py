"""The README's Python examples run as written, from top to bottom; what is installed is whole."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def blocks():
    return re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


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
    sweep, processes, *examples = blocks()
    assert len(examples) == 6
    names = {}
    exec(sweep, names)
    assert len(names["finals"]) == 50
    (tmp_path / "program.py").write_text(processes)
    done = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True)
    applied, mean_return = map(float, done.stdout.split())
    assert applied * 5 == 300_000
    assert mean_return > 300
    names = {}
    for block in examples:
        exec(block, names)
    assert names["state"].learner.updates == 100


def test_every_package_is_installed():
    """Also where the source tree is not there: `find` takes folders that say that they are one."""
    root = README.parent
    setuptools = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert setuptools["packages"] == {"find": {"include": ["rljax*"]}}
    assert all((path.parent / "__init__.py").exists() for path in root.glob("rljax/**/*.py"))
