"""Every script of experiments/claims, with few seeds and short runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "experiments" / "claims"


def test_all_claims_are_tested_and_told(tmp_path):
    command = [sys.executable, str(FOLDER / "run_all.py"), "--quick", "--run-dir", str(tmp_path)]
    subprocess.run(command, check=True, cwd=tmp_path)
    page = (tmp_path / "quick" / "README.md").read_text()
    results = sorted((tmp_path / "quick" / "results").iterdir())
    names = [path.stem for path in results]
    assert len(names) == page.count("\n## ") == page.count("![")
    assert "Not tested" not in page
    for path in results:
        result = json.loads(path.read_text())
        assert result["quick"]
        assert result["answer"]
        assert result["sentences"]
        figure = tmp_path / "quick" / "figures" / f"{path.stem}.png"
        assert figure.read_bytes().startswith(b"\x89PNG")
        assert f"## {result['claim'].rstrip('.')}" in page
    # A claim is a script that says how long it takes; the page has all of them.
    scripts = [path for path in FOLDER.glob("*.py") if "\nHOURS = " in path.read_text()]
    assert sorted(path.stem for path in scripts) == names
