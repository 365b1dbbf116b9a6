"""Runs survive what computers do to them; the counts are those that the README states."""

import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
sys.path.insert(0, str(EXPERIMENTS))


@pytest.mark.slow
def test_chaos(capsys):
    import chaos

    status = chaos.main([])
    out = capsys.readouterr().out
    assert status == 0, out
    if "SKIPPED" in out:
        pytest.skip(out)
    assert out.count("identical") == len(chaos.FAULTS) - 1  # all but 'none', which is refused
