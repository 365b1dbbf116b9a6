"""Files written whole or not at all, on disks that are full and by processes that are killed."""

import contextlib
import errno
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from rljax.utils import atomic_io

HOLD = """
import sys
from pathlib import Path
from rljax.utils import atomic_io

with atomic_io.lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def no_file_may_grow_beyond(size):
    """A write that goes beyond takes a part first and then fails, as on an almost full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def failing(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failing_at(call, function):
    """The function, but its so-many-th call, counted from 0, fails."""
    calls = iter(range(1_000))
    return lambda *args: failing() if next(calls) == call else function(*args)


def disk_with(monkeypatch, room, at_once):
    """Files of `append` take so many bytes at once, and so many in all."""

    class File(io.FileIO):
        def write(self, data):
            nonlocal room
            taken = min(room, at_once, len(data))
            if not taken:
                failing()
            room -= taken
            return super().write(data[:taken])

    monkeypatch.setattr(atomic_io, "open", lambda path, mode, buffering: File(path, mode), False)


def contents_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def names_in(folder):
    return sorted(p.name for p in folder.iterdir())


def test_write_replaces_a_file_and_leaves_nothing_else(tmp_path):
    atomic_io.write(tmp_path / "file", b"old")
    atomic_io.write(tmp_path / "file", b"new")
    assert contents_of(tmp_path) == {"file": b"new"}


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_write_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch, name):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, name, failing)
    with pytest.raises(atomic_io.WriteError, match=f"{re.escape(str(path))}.*No space left"):
        atomic_io.write(path, b"new")
    assert contents_of(tmp_path) == {"file": b"old"}


def test_write_leaves_the_old_file_when_only_a_part_fits(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with no_file_may_grow_beyond(100), pytest.raises(atomic_io.WriteError, match=str(path)):
        atomic_io.write(path, bytes(10_000))
    assert contents_of(tmp_path) == {"file": b"old"}


@pytest.mark.parametrize(
    "name", ["nowhere/file", "a_file/file", "x" * 300], ids=["nowhere", "below a file", "too long"]
)
def test_write_names_a_path_that_there_cannot_be(tmp_path, name):
    (tmp_path / "a_file").write_bytes(b"old")
    with pytest.raises(atomic_io.WriteError, match=str(tmp_path / name)):
        atomic_io.write(tmp_path / name, b"new")
    assert contents_of(tmp_path) == {"a_file": b"old"}


def test_append_completes_many_partial_writes(tmp_path, monkeypatch):
    path = tmp_path / "table"
    path.write_bytes(b"first\n")
    disk_with(monkeypatch, room=1_000, at_once=3)
    text = "zwölf Läufe\n" * 20  # bytes and characters are not the same
    atomic_io.append(path, text)
    assert path.read_bytes() == b"first\n" + text.encode()


@pytest.mark.parametrize("room", [0, 1, 7, 11])
def test_append_adds_nothing_where_only_a_part_fits(tmp_path, monkeypatch, room):
    path = tmp_path / "table"
    path.write_bytes(b"first\n")
    disk_with(monkeypatch, room, at_once=4)
    with pytest.raises(atomic_io.WriteError, match=f"{path}.*No space left"):
        atomic_io.append(path, "second\nthird\n")
    assert path.read_bytes() == b"first\n"


def test_append_adds_nothing_where_the_system_takes_only_a_part(tmp_path):
    path = tmp_path / "table"
    path.write_bytes(b"first\n")
    with no_file_may_grow_beyond(10), pytest.raises(atomic_io.WriteError, match=str(path)):
        atomic_io.append(path, "second\nthird\n")
    assert path.read_bytes() == b"first\n"
    atomic_io.append(path, "second\n")
    assert path.read_bytes() == b"first\nsecond\n"


def test_append_that_fails_makes_no_file(tmp_path):
    with no_file_may_grow_beyond(10), pytest.raises(atomic_io.WriteError, match="table"):
        atomic_io.append(tmp_path / "table", "second\nthird\n")
    assert names_in(tmp_path) == []


def test_append_names_a_device_that_is_full():
    with pytest.raises(atomic_io.WriteError, match="/dev/full could not be written"):
        atomic_io.append(Path("/dev/full"), "second\n")


def test_write_folder_replaces_the_whole_folder(tmp_path):
    path = tmp_path / "above" / "folder"
    atomic_io.write_folder(path, {"a": b"1", "b": b"2"})
    assert contents_of(path) == {"a": b"1", "b": b"2"}
    atomic_io.write_folder(path, {"b": b"3", "c": b"4"})
    assert contents_of(path) == {"b": b"3", "c": b"4"}
    assert names_in(path.parent) == ["folder"]


@pytest.mark.parametrize("there_is_one", [True, False])
@pytest.mark.parametrize("size", [100, 10_000])
def test_write_folder_changes_nothing_when_a_file_does_not_fit(tmp_path, size, there_is_one):
    path = tmp_path / "folder"
    if there_is_one:
        atomic_io.write_folder(path, {"a": b"old"})
    with (
        no_file_may_grow_beyond(size),
        pytest.raises(atomic_io.WriteError, match=r"folder.*too large"),
    ):
        atomic_io.write_folder(path, {"a": b"new", "b": bytes(size + 1)})
    assert names_in(tmp_path) == ["folder"] * there_is_one
    assert not there_is_one or contents_of(path) == {"a": b"old"}


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("rename", 0),  # of the old one out of the way
        ("rename", 1),  # of the new one into its place
        ("fsync", 0),
        ("fsync", 1),
    ],
)
def test_write_folder_leaves_the_old_one_wherever_it_fails(tmp_path, monkeypatch, name, call):
    path = tmp_path / "folder"
    atomic_io.write_folder(path, {"a": b"old"})
    monkeypatch.setattr(os, name, failing_at(call, getattr(os, name)))
    with pytest.raises(atomic_io.WriteError, match=r"folder.*No space left"):
        atomic_io.write_folder(path, {"a": b"new", "b": b"new"})
    assert names_in(tmp_path) == ["folder"]
    assert contents_of(path) == {"a": b"old"}


def test_a_folder_that_failed_can_be_written_again(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing)
        with pytest.raises(atomic_io.WriteError):
            atomic_io.write_folder(path, {"a": b"1"})
    atomic_io.write_folder(path, {"a": b"2"})
    assert contents_of(path) == {"a": b"2"}


def test_remove_folder(tmp_path):
    atomic_io.write_folder(tmp_path / "one", {"a": b"1"})
    atomic_io.write_folder(tmp_path / "other", {"a": b"2"})
    atomic_io.remove_folder(tmp_path / "one")
    atomic_io.remove_folder(tmp_path / "never_there")
    assert names_in(tmp_path) == ["other"]
    assert contents_of(tmp_path / "other") == {"a": b"2"}


def test_remove_folder_leaves_it_when_it_fails(tmp_path, monkeypatch):
    atomic_io.write_folder(tmp_path / "one", {"a": b"1"})
    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(atomic_io.WriteError, match=f"{tmp_path / 'one'} could not be written"):
        atomic_io.remove_folder(tmp_path / "one")
    assert names_in(tmp_path) == ["one"]
    assert contents_of(tmp_path / "one") == {"a": b"1"}


def test_a_folder_whose_removal_is_cut_short_is_gone_and_is_tidied(tmp_path, monkeypatch):
    atomic_io.write_folder(tmp_path / "one", {"a": b"1"})
    with monkeypatch.context() as patched:
        patched.setattr(atomic_io.shutil, "rmtree", lambda *_, **__: None)  # as if killed before
        atomic_io.remove_folder(tmp_path / "one")
    assert len(names_in(tmp_path)) == 1
    assert not (tmp_path / "one").exists()
    atomic_io.tidy(tmp_path)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("name", ["000000000016", "model.v2"])
@pytest.mark.parametrize(
    ("kind", "there_is_one", "left"),
    [
        ("new", True, b"whole"),
        ("new", False, None),
        ("gone", True, b"whole"),
        ("gone", False, None),
        ("old", True, b"whole"),
        ("old", False, b"left over"),  # killed between two renames
    ],
)
def test_tidy_after_a_folder(tmp_path, name, kind, there_is_one, left):
    atomic_io.write_folder(tmp_path / f".{name}.123.{kind}", {"a": b"left over"})
    if there_is_one:
        atomic_io.write_folder(tmp_path / name, {"a": b"whole"})
    atomic_io.tidy(tmp_path)
    assert names_in(tmp_path) == [name] * (left is not None)
    assert left is None or contents_of(tmp_path / name) == {"a": left}


def test_tidy_after_a_folder_killed_between_two_renames(tmp_path):
    """Then the new one is there too; it may be whole, but only the old one was ever in place."""
    atomic_io.write_folder(tmp_path / ".16.123.new", {"a": b"new"})
    atomic_io.write_folder(tmp_path / ".16.123.old", {"a": b"old"})
    atomic_io.tidy(tmp_path)
    assert names_in(tmp_path) == ["16"]
    assert contents_of(tmp_path / "16") == {"a": b"old"}


def test_tidy_after_a_file(tmp_path):
    (tmp_path / ".metrics.csv.123.part").write_bytes(b"half")
    (tmp_path / "metrics.csv").write_bytes(b"whole")
    atomic_io.tidy(tmp_path)
    assert contents_of(tmp_path) == {"metrics.csv": b"whole"}


def test_tidy_removes_whatever_has_the_name_of_a_leftover(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / ".a.12.part").mkdir()
    (tmp_path / ".a.12.new").write_text("")
    (tmp_path / ".a.12.gone").symlink_to(tmp_path / "kept")
    os.mkfifo(tmp_path / ".b.12.part")
    atomic_io.tidy(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_tidy_touches_nothing_else(tmp_path):
    names = "a.123 b.123.new config.json new .lock .notes.txt .draft.2024 .notes.old".split()
    for name in names:
        (tmp_path / name).write_text(name)
    atomic_io.write_folder(tmp_path / ".cache", {".x.123": b"of another folder"})
    atomic_io.write_folder(tmp_path / "000000000016.damaged", {"a": b"kept"})
    atomic_io.tidy(tmp_path)
    assert names_in(tmp_path) == sorted([*names, ".cache", "000000000016.damaged"])
    assert names_in(tmp_path / ".cache") == [".x.123"]
    assert [(tmp_path / name).read_text() for name in names] == names


def test_tidy_of_a_folder_that_is_not_there(tmp_path):
    atomic_io.tidy(tmp_path / "checkpoints")
    assert names_in(tmp_path) == []


@pytest.fixture
def holder(tmp_path):
    """(the lock file, another process that holds it until its input ends)."""
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield path, process
        process.kill()


def test_a_lock_is_refused_while_another_process_holds_it(holder):
    path, process = holder
    refused = pytest.raises(BlockingIOError, match=f"^process {process.pid} on {os.uname()[1]}$")
    with refused, atomic_io.lock(path):
        pass
    process.stdin.close()
    assert process.wait(10) == 0
    with atomic_io.lock(path):
        assert path.read_text().startswith(f"process {os.getpid()} ")


def test_a_lock_is_free_after_its_process_was_killed(holder):
    path, process = holder
    process.kill()
    assert process.wait(10) == -signal.SIGKILL
    with atomic_io.lock(path):
        assert path.read_text().startswith(f"process {os.getpid()} ")


def test_a_lock_is_free_after_an_error_in_its_block(tmp_path):
    with pytest.raises(KeyError), atomic_io.lock(tmp_path / ".lock"):
        raise KeyError
    with atomic_io.lock(tmp_path / ".lock"):
        refused = pytest.raises(BlockingIOError, match=f"process {os.getpid()} ")
        with refused, atomic_io.lock(tmp_path / ".lock"):
            pass


# JSON


def test_json_is_valid_whatever_it_holds():
    tree = {
        "nan": float("nan"),
        "inf": [np.float32("inf"), -float("inf")],
        "numbers": (np.float32(0.5), np.int64(3), np.bool_(True), jnp.float32(2)),
        "array": np.array([[1.5, np.nan]]),
        1: Path("a"),
        "none": None,
    }
    assert json.loads(atomic_io.json_bytes(tree), parse_constant=pytest.fail) == {
        "nan": "nan",
        "inf": ["inf", "-inf"],
        "numbers": [0.5, 3, True, 2.0],
        "array": [[1.5, "nan"]],
        "1": "a",
        "none": None,
    }


def test_json_of_before_is_read():
    assert atomic_io.parse_json(b'{"a": [Infinity, 1]}') == {"a": [float("inf"), 1]}
    assert atomic_io.parse_json(b"3") == 3
    with pytest.raises(ValueError, match="nested too deeply"):
        atomic_io.parse_json(b"[" * 200 + b"]" * 200)
