"""Ctrl-C, SIGTERM and a notebook's stop button end a library call in order."""

import os
import signal
import threading

import jax
import numpy as np
import pytest
from small_runs import results, stop_at_update, train

import rljax
from rljax import a2c, evaluation
from rljax.runs import checkpoints, interrupts
from rljax.utils import seeds

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SHORT = dict(total_timesteps=640, eval_every=0, eval_episodes=2)


@pytest.fixture(autouse=True)
def handlers():
    """Those of before are in place after each test, whatever it did."""
    before = [signal.getsignal(number) for number in SIGNALS]
    yield before
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupted_call_returns_the_run_so_far(monkeypatch, number):
    stop_at_update(monkeypatch, 21, number)
    run = train(**SHORT)
    assert (run.status, run.exit_status) == ("interrupted", 128 + number)
    assert run.env_steps == [21 * 16] * 2
    assert run.metrics["updates"].tolist() == [n for n in range(1, 22) for _ in range(2)]
    assert run.summary["final_return"] is None
    assert run.evaluate(2)["episodes"] == 2
    assert run.policy(6)(np.zeros(1), jax.random.key(0)) in (0, 1)
    assert run.plot() is not None


def test_an_interrupted_call_is_resumed_to_the_same_bits(tmp_path):
    train(tmp_path / "whole", **{**SHORT, "eval_every": 320})
    with pytest.MonkeyPatch.context() as patch:
        stop_at_update(patch, 21, signal.SIGINT)
        train(tmp_path / "run", **{**SHORT, "eval_every": 320})
    assert checkpoints.existing(tmp_path / "run")[-1] == 21 * 16
    assert rljax.resume(tmp_path / "run", quiet=True).status == "completed"
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_an_interrupt_in_a_chunk_without_updates_saves_those_before(tmp_path, monkeypatch):
    """As A3C gives while no gradient comes."""
    chunks = a2c.chunks

    def with_empty_ones(*args, **how):
        for states, metrics in chunks(*args, **how):
            yield states, metrics
            if metrics.updates[0] == 21:
                os.kill(os.getpid(), signal.SIGINT)
                yield states, metrics

    monkeypatch.setattr(a2c, "chunks", with_empty_ones)
    monkeypatch.setattr(seeds, "CHUNK_SECONDS", 1e-9)
    run = train(tmp_path / "run", **SHORT, log_interval=10)
    assert (run.status, run.env_steps) == ("interrupted", [21 * 16] * 2)
    assert checkpoints.existing(tmp_path / "run")[-1] == 21 * 16
    assert run.metrics["updates"].tolist() == [10, 10, 20, 20]


def test_an_interrupt_from_outside_at_any_moment():
    """As the stop button sends it: to the process, while the main thread computes."""
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    told = dict(SHORT, total_timesteps=2**30, log_interval=1000)
    run = train(**told, on_log=lambda row: timer.is_alive() or timer.ident or timer.start())
    assert run.status == "interrupted"
    assert run.metrics["updates"].iloc[-1] > 0


@pytest.mark.slow
def test_an_interrupt_of_a_run_in_processes():
    """Worker processes are gone; the call returns what was applied."""
    told = dict(SHORT, num_envs=1, num_seeds=1, total_timesteps=2**20, log_interval=50)
    send = lambda row: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
    from small_runs import OPTIONS, SETTINGS

    run = rljax.train("a3c", **{**SETTINGS, **OPTIONS, **told}, num_workers=1, on_log=send)
    assert run.status == "interrupted"
    assert run.summary["updates"] == run.summary["gradients_applied"] >= 50
    import multiprocessing

    assert not [p for p in multiprocessing.active_children() if p.name.startswith("worker")]


def test_an_interrupt_before_training_raises_and_leaves_nothing(tmp_path, monkeypatch):
    make = a2c.init_seeds
    send = lambda *args: (os.kill(os.getpid(), signal.SIGINT), make(*args))[1]  # noqa: E731
    monkeypatch.setattr(a2c, "init_seeds", send)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", **SHORT)
    assert list(tmp_path.iterdir()) == []


def test_the_second_interrupt_does_not_wait(monkeypatch):
    """The first is only noted, until training can stop in order."""
    reached = []

    def twice(row):
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("after the first")
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("after the second")

    run = train(**SHORT, on_log=twice)
    assert (run.status, reached) == ("interrupted", ["after the first"])


def test_the_last_evaluation_is_interrupted_at_once(monkeypatch):
    def endless(*args, **how):
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it was only noted")

    monkeypatch.setattr(evaluation, "evaluate", endless)
    run = train(**SHORT)
    assert (run.status, run.env_steps) == ("interrupted", [640, 640])


def test_handlers_are_restored_after_an_error(handlers):
    for told, kind in ((dict(gamma=2.0), ValueError), (dict(on_log=lambda row: 1 / 0), None)):
        with pytest.raises(kind or ZeroDivisionError):
            train(**{**SHORT, **told})
        assert [signal.getsignal(number) for number in SIGNALS] == handlers


def test_a_thread_that_is_not_the_main_one_trains_without_signals():
    runs = []
    thread = threading.Thread(target=lambda: runs.append(train(**SHORT)))
    thread.start()
    thread.join()
    assert runs[0].status == "completed"
    assert runs[0].metrics.groupby("seed")["updates"].max().tolist() == [40, 40]


def test_a_block_within_another_shares_its_signals():
    with interrupts.noted() as outer:
        with interrupts.noted() as inner:
            assert inner is outer
            os.kill(os.getpid(), signal.SIGTERM)
        assert outer.received == signal.SIGTERM
        assert outer.exit_status == 143
        with pytest.raises(KeyboardInterrupt):
            outer.check()
