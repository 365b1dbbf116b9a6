"""Claims of processes that share a folder."""

import contextlib
import errno
import subprocess
import sys

import pytest

from rljax.sweep import ownership
from rljax.utils.atomic_io import WriteError


@pytest.fixture
def two(tmp_path):
    with ownership.claimant(tmp_path) as one, ownership.claimant(tmp_path) as other:
        yield one, other


@pytest.fixture
def clock(monkeypatch):
    """Seconds, to be set."""
    now = [0.0]
    monkeypatch.setattr(ownership.time, "monotonic", lambda: now[0])
    return now


@contextlib.contextmanager
def elsewhere(monkeypatch, locks):
    """Makes processes that begin in the block ones of another machine, whose locks are not seen,
    or that has none."""
    with monkeypatch.context() as patch:
        patch.setattr(ownership, "_machine", lambda: b"another")
        yield
    monkeypatch.setattr(ownership, "_try_lock", lambda path: locks)


def test_a_claim_has_one_owner(two):
    one, other = two
    assert one.claim(["1", "2"]) == ["1", "2"]
    assert other.claim(["1", "2", "3"]) == ["3"]
    assert one.owned() == other.owned() == {"1", "2", "3"}
    one.release(["1"])
    assert other.owned() == {"2", "3"}
    assert other.claim(["1", "2"]) == ["1"]


def test_claims_end_with_their_owner(tmp_path):
    with ownership.claimant(tmp_path) as one:
        with ownership.claimant(tmp_path) as other:
            assert other.claim(["1"]) == ["1"]
            assert one.claim(["1"]) == []
        assert one.owned() == set()
        assert one.claim(["1"]) == ["1"]


KILLED = """
import os, signal, sys
from pathlib import Path
from rljax.sweep import ownership
with ownership.claimant(Path(sys.argv[1])) as one:
    assert one.claim(["1"]) == ["1"]
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_claims_of_a_killed_process_are_free_at_once(tmp_path):
    """By its lock: its files are still there. Then the claim counts one ended owner."""
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    assert subprocess.run(command).returncode == -9
    assert [path.name for path in (tmp_path / "claims").iterdir()] == ["1.0"]
    with ownership.claimant(tmp_path) as one, ownership.claimant(tmp_path) as other:
        assert one.owned() == set()
        assert one.claim(["1"]) == ["1"]
        assert one.mine == {"1": 1}
        assert other.claim(["1"]) == []
        one.release(["1"])
    assert list((tmp_path / "claims").iterdir()) == []


@pytest.mark.parametrize("locks", [0, errno.ENOLCK])
def test_without_locks_between_machines_silence_decides(tmp_path, monkeypatch, clock, locks):
    with elsewhere(monkeypatch, locks):
        there = ownership.claimant(tmp_path)
        far = there.__enter__()
        far.claim(["1"])
    with ownership.claimant(tmp_path) as near:
        for count in range(5):  # its count moves
            clock[0] += 0.9 * ownership.SILENT
            (tmp_path / far.name / "alive").write_bytes(b"%012d another\n" % count)
            assert near.claim(["1"]) == []
        clock[0] += 0.9 * ownership.SILENT
        assert near.claim(["1"]) == []
        clock[0] += 0.2 * ownership.SILENT
        assert near.owned() == set()
        assert near.claim(["1"]) == ["1"]
    there.__exit__(None, None, None)


def test_a_lock_between_machines_that_was_seen_held_decides(tmp_path, monkeypatch, clock):
    with elsewhere(monkeypatch, errno.EAGAIN):
        there = ownership.claimant(tmp_path)
        far = there.__enter__()
        far.claim(["1"])
    with ownership.claimant(tmp_path) as near:
        assert near.owned() == {"1"}
        clock[0] += 10 * ownership.SILENT
        assert near.owned() == {"1"}
        monkeypatch.setattr(ownership, "_try_lock", lambda path: 0)
        assert near.owned() == set()
    there.__exit__(None, None, None)


def test_a_claim_that_was_not_written_is_free_after_silence(tmp_path, clock):
    """Its owner was killed between making it and writing its name."""
    with ownership.claimant(tmp_path) as one:
        (tmp_path / "claims" / "1.0").touch()
        assert one.claim(["1"]) == []
        clock[0] += 1.1 * ownership.SILENT
        assert one.claim(["1"]) == ["1"]


def test_a_living_process_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(ownership, "BEAT", 0.01)
    with ownership.claimant(tmp_path) as one:
        alive = tmp_path / one.name / "alive"
        counts = set()
        for _ in range(1000):
            counts.add(alive.read_bytes())
            if len(counts) > 2:
                break
            ownership.time.sleep(0.01)
        assert len({len(count) for count in counts}) == 1
    assert len(counts) > 2
    assert not alive.exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(WriteError, match="could not be written"),
        ownership.claimant(tmp_path / "file"),
    ):
        pass
