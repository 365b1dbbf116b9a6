"""Run directories of which pages are made."""

import pytest
from small_runs import train


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    train(run_dir)
    return run_dir
