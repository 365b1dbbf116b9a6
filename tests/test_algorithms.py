"""The seam between algorithms and the rest: a third one needs its name in one table."""

import numpy as np
import pytest

import rljax
from rljax import sweep
from rljax.algorithms import ALGORITHMS, Algorithm
from rljax.cli import training
from rljax.config import Config
from rljax.utils import seeds

SMALL = dict(
    env="probes:RewardByAction", total_timesteps=320, num_envs=4, num_steps=4, hidden_sizes=(8,)
)


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(ALGORITHMS, "toy", Algorithm("toy_algorithm", num_seeds=2))


def test_a_third_algorithm_trains_resumes_and_is_evaluated(tmp_path):
    how = dict(SMALL, learning_rate=0.01, quiet=True, eval_episodes=4, eval_every=160)
    run = rljax.train("toy", run_dir=tmp_path / "run", **how)
    assert (run.status, run.seeds, run.env_steps) == ("completed", [0, 1], [320, 320])
    assert run.summary["final_return"]["iqm"] == 1.0
    assert run.policy(seed=1, greedy=True)(np.zeros(1)) in (0, 1)
    again = rljax.resume(tmp_path / "run", total_timesteps=640)
    assert again.env_steps == [640, 640]
    assert rljax.load(tmp_path / "run").summary == again.summary
    assert training.main("toy", "Trains.", ["--resume", str(tmp_path / "run"), "--quiet"]) == 0


@pytest.mark.slow
def test_a_third_algorithm_is_swept():
    base = Config(**SMALL)
    table = sweep.run(
        base, {"learning_rate": [0.01, 0.03]}, [0, 1], algorithm="toy", eval_episodes=2
    )
    assert table["trial"].nunique() == 4
    assert table["eval_return"].max() == 1.0


def test_seeds_one_after_another_keep_their_axis():
    """Each is trained to its end before the next; a seed that is done is left out."""
    from rljax.types import Metrics, TrainState

    def state(updates):
        return rljax.types.AgentState(TrainState(np.ones(2), (), updates, None, None), (), (), ())

    def chunks(one):
        for _ in range(2):
            one = one._replace(learner=one.learner._replace(updates=one.learner.updates + 1))
            x = np.float32(one.learner.updates)
            yield one, Metrics(np.int32(x), x, x, x, {"loss": x}, x, x, np.int32(0))

    states = seeds.stack([state(np.int32(n)) for n in (2, 0, 0)])
    found = list(seeds.one_after_another(states, 2, chunks))
    assert [m.updates.tolist() for _, m in found] == [[2, 1, 0], [2, 2, 0], [2, 2, 1], [2, 2, 2]]
    assert [s.learner.updates.tolist() for s, _ in found] == [m.updates.tolist() for _, m in found]
    np.testing.assert_array_equal(found[2][1].losses["loss"], [np.nan, np.nan, 1])
