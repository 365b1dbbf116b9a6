"""Checkpoints: what is saved comes back, and what is damaged is noticed."""

import pickle
import threading
from concurrent import futures
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.runs import checkpoints
from rljax.runs.checkpoints import DamagedError
from rljax.runs.recorder import Recorder
from rljax.utils import atomic_io, pytrees

FILES = ["manifest.json", "state.safetensors"]


class Pair(NamedTuple):
    first: Any
    second: Any


LEAVES = {
    "float32": np.array([0.1, -0.0, np.nan, np.inf], np.float32),
    "float64": np.array([0.1, np.pi]),
    "int32": np.array([-(2**31), 2**31 - 1], np.int32),
    "uint32": jnp.array([0, 2**32 - 1], jnp.uint32),
    "bool": jnp.array([[True, False, True]]),
    "bfloat16": jnp.array([[0.1, -3.0], [jnp.inf, 1e-8]], jnp.bfloat16),
    "0-d": np.array(0.1, np.float32),
    "0-d of NumPy's own": np.int32(7),
    "0-d bfloat16": jnp.bfloat16(0.1),
    "empty": np.zeros((2, 0, 3), np.int32),
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "transposed bfloat16": np.arange(6).reshape(2, 3).astype(jnp.bfloat16).T,
    "strided": np.arange(12, dtype=np.int32)[::-3],
    "Fortran's order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "threefry2x32": jax.random.key(3),
    "threefry2x32 of seeds": jax.random.split(jax.random.key(3, impl="threefry2x32"), 4),
    "rbg": jax.random.key(3, impl="rbg"),
    "rbg of seeds": jax.random.split(jax.random.key(3, impl="rbg"), 2),
    "raw key": jax.random.PRNGKey(3),
}


def save_small(run_dir, env_steps=16):
    """The folder of a checkpoint that takes few bytes."""
    path = checkpoints.folder(run_dir, env_steps)
    tree = {"x": np.full(2, env_steps, np.int32)}
    checkpoints.save(path, {"state": tree}, {"env_steps": env_steps})
    return path


def damage(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def assert_same(saved, there):
    assert saved.dtype == there.dtype
    assert saved.shape == there.shape
    if jax.dtypes.issubdtype(there.dtype, jax.dtypes.prng_key):
        assert jax.random.key_impl(saved) == jax.random.key_impl(there)
        saved, there = jax.random.key_data(saved), jax.random.key_data(there)
    assert np.asarray(saved).tobytes() == np.asarray(there).tobytes()


def assert_same_trees(saved, there):
    assert jax.tree.structure(saved) == jax.tree.structure(there)
    for x, y in zip(jax.tree.leaves(saved), jax.tree.leaves(there)):
        assert_same(x, y)


@pytest.mark.parametrize("leaf", LEAVES.values(), ids=LEAVES)
def test_a_leaf_comes_back_as_it_was(tmp_path, leaf):
    checkpoints.save(tmp_path / "16", {"state": {"x": leaf}}, {})
    _, trees = checkpoints.load(tmp_path / "16")
    assert_same(checkpoints.restore(trees["state"], {"x": leaf})["x"], leaf)


def test_a_tree_comes_back_as_it_was(tmp_path):
    tree = Pair(
        first={"b": [np.arange(3), (np.zeros(2, bool), None)], "a": {"params": {"kernel": 1.5}}},
        second=Pair(None, (jax.random.key(1), {"c": jnp.float32(2)}, ())),
    )
    tree = jax.tree.map(jnp.asarray, tree)
    checkpoints.save(tmp_path / "16", {"state": tree}, {})
    _, trees = checkpoints.load(tmp_path / "16")
    shapes = jax.eval_shape(lambda: tree)
    assert_same_trees(checkpoints.restore(trees["state"], tree), tree)
    assert_same_trees(checkpoints.restore(trees["state"], shapes), tree)


def test_trees_and_facts_are_kept_apart(tmp_path):
    states, best = {"x": np.zeros(2)}, {"x": np.ones(3)}
    facts = {"seeds": [5, 6], "config": {"gamma": 0.1 + 0.2}, "name": "Läufer"}
    checkpoints.save(tmp_path / "16", {"state": states, "best": best}, facts)
    manifest, trees = checkpoints.load(tmp_path / "16")
    assert {name: manifest[name] for name in facts} == facts
    assert set(trees) == {"state", "best"}
    assert_same_trees(checkpoints.restore(trees["state"], states), states)
    assert_same_trees(checkpoints.restore(trees["best"], best), best)


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_noticed(tmp_path, name):
    path = save_small(tmp_path) / name
    whole = path.read_bytes()
    unnoticed = []
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            checkpoints.load(path.parent)
            unnoticed.append(bit)
        except DamagedError as error:
            if str(path) not in str(error):
                unnoticed.append((bit, error))
    assert unnoticed == []
    path.write_bytes(whole)
    checkpoints.load(path.parent)


@pytest.mark.parametrize("name", FILES)
def test_every_truncation_is_noticed(tmp_path, name):
    """To nothing, too."""
    path = save_small(tmp_path) / name
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedError, match=str(path)):
            checkpoints.load(path.parent)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("more", [b"\0", b"\n", b" ", b"{}"])
def test_added_bytes_are_noticed(tmp_path, name, more):
    path = save_small(tmp_path) / name
    path.write_bytes(path.read_bytes() + more)
    with pytest.raises(DamagedError, match=str(path)):
        checkpoints.load(path.parent)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_noticed(tmp_path, name):
    path = save_small(tmp_path) / name
    path.unlink()
    with pytest.raises(DamagedError, match=rf"{path} cannot be read \(No such file"):
        checkpoints.load(path.parent)


@pytest.mark.parametrize(
    "text", ["", "null", "1", '"format"', "[]", '["format"]', "{}", '{"format": 1}', "\0", "ä"]
)
def test_what_is_no_manifest_is_damaged(tmp_path, text):
    path = save_small(tmp_path) / "manifest.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(DamagedError, match=str(path)):
        checkpoints.load(path.parent)


def test_the_manifest_of_another_checkpoint_is_noticed(tmp_path):
    one, other = save_small(tmp_path, 16), save_small(tmp_path, 32)
    (one / "manifest.json").replace(other / "manifest.json")
    with pytest.raises(DamagedError, match=str(other / "state.safetensors")):
        checkpoints.load(other)


@pytest.mark.parametrize("version", [0, 2, "2"])
def test_a_format_of_another_version_is_not_damage(tmp_path, monkeypatch, version):
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "FORMAT", version)
        path = save_small(tmp_path)
    with pytest.raises(ValueError, match=f"format {version}, not 1") as caught:
        checkpoints.load(path)
    assert not isinstance(caught.value, DamagedError)
    with pytest.raises(ValueError, match=f"format {version}, not 1"):
        checkpoints.newest(tmp_path)
    damage(path / "manifest.json")
    with pytest.raises(DamagedError):
        checkpoints.load(path)


class Malice:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["state.safetensors", "state.pickle", "state.npz", "state.npy"])
def test_loading_never_unpickles(tmp_path, name):
    """Not even where every sum is right."""
    data = pickle.dumps(Malice(tmp_path / "made"))
    sums = {"bytes": len(data), "sha256": checkpoints.sha256(data)}
    manifest = checkpoints._seal({"format": checkpoints.FORMAT, "files": {name: sums}})
    atomic_io.write_folder(tmp_path / "16", {name: data, "manifest.json": manifest})
    with pytest.raises(DamagedError, match=name if name.endswith(".safetensors") else "no name"):
        checkpoints.load(tmp_path / "16")
    assert not (tmp_path / "made").exists()
    pickle.loads(data)
    assert (tmp_path / "made").exists()  # had it been unpickled


@pytest.mark.parametrize(("damaged", "taken"), [([], 48), ([48], 32), ([48, 32], 16), ([32], 48)])
def test_newest_falls_back_in_order(tmp_path, damaged, taken):
    for env_steps in (32, 16, 48):
        save_small(tmp_path, env_steps)
    for env_steps in damaged:
        damage(checkpoints.folder(tmp_path, env_steps) / "state.safetensors")
    manifest, trees, problems = checkpoints.newest(tmp_path)
    assert manifest["env_steps"] == taken
    np.testing.assert_array_equal(trees["state"]["x"], taken)
    passed_over = [env_steps for env_steps in damaged if env_steps > taken]
    assert len(problems) == len(passed_over)
    for env_steps, problem in zip(passed_over, problems):
        assert str(checkpoints.folder(tmp_path, env_steps)) in problem


def test_newest_takes_what_the_check_finds_for_damage(tmp_path):
    for env_steps in (16, 32):
        save_small(tmp_path, env_steps)

    def check(path, manifest, trees):
        assert path == checkpoints.folder(tmp_path, trees["state"]["x"][0])
        if manifest["env_steps"] == 32:
            raise DamagedError("metrics.csv was cut")

    manifest, _, problems = checkpoints.newest(tmp_path, check)
    assert manifest["env_steps"] == 16
    assert problems == ["metrics.csv was cut"]


def test_newest_says_what_is_wrong_with_each(tmp_path):
    damage(save_small(tmp_path, 16) / "manifest.json")
    (save_small(tmp_path, 32) / "state.safetensors").unlink()
    wrong = "no whole checkpoint in .*000032/state.safetensors cannot.*; .*000016/manifest.json is"
    with pytest.raises(ValueError, match=wrong):
        checkpoints.newest(tmp_path)


def test_newest_of_none(tmp_path):
    with pytest.raises(ValueError, match=r"no whole checkpoint in .*: there are none"):
        checkpoints.newest(tmp_path)


def test_existing_takes_only_names_of_checkpoints(tmp_path):
    assert checkpoints.existing(tmp_path) == []
    for env_steps in (1_000_000_000_000, 128, 0, 16):
        checkpoints.folder(tmp_path, env_steps).mkdir(parents=True)
    others = ".000000000256.123.new .000000000512.123.old 000000000256.damaged -1 best 1e3 12.5"
    for name in others.split():
        (tmp_path / "checkpoints" / name).mkdir()
    assert checkpoints.existing(tmp_path) == [0, 16, 128, 1_000_000_000_000]


@pytest.mark.parametrize(
    ("like", "named"),
    [
        ({"x": np.zeros(4, np.float32)}, r"x is float32\[3\], not float32\[4\]"),
        ({"x": np.zeros((3, 1), np.float32)}, r"x is float32\[3\], not float32\[3, 1\]"),
        ({"x": np.zeros(3, np.int32)}, r"x is float32\[3\], not int32\[3\]"),
        ({"x": np.zeros(3, jnp.bfloat16)}, r"x is float32\[3\], not bfloat16\[3\]"),
        ({"x": jax.random.split(jax.random.key(0), 3)}, r"x is float32\[3\], not key<fry>\[3\]"),
        ({"x": np.float32(0)}, r"x is float32\[3\], not float32\[\]"),
        ({"y": np.zeros(3, np.float32)}, "y is absent, not float32"),
        ({"x": {"y": np.zeros(3, np.float32)}}, "x/y is absent, not float32"),
        ({"x": np.zeros(3, np.float32), "y": np.zeros(1, bool)}, "y is absent, not bool"),
        ({}, r"x is float32\[3\], not absent"),
        ({"x": None}, r"x is float32\[3\], not absent"),
    ],
)
def test_restore_refuses_another_tree(tmp_path, like, named):
    checkpoints.save(tmp_path / "16", {"state": {"x": np.zeros(3, np.float32)}}, {})
    _, trees = checkpoints.load(tmp_path / "16")
    with pytest.raises(ValueError, match=f"^the saved {named}"):
        checkpoints.restore(trees["state"], like)


def test_leaves_that_are_newer_than_a_checkpoint_are_zeros(tmp_path):
    checkpoints.save(tmp_path / "16", {"state": {"moments": {"mean": np.ones(2)}}}, {})
    _, trees = checkpoints.load(tmp_path / "16")
    like = {"moments": {"mean": np.ones(2), "mean_error": np.ones(2, np.float32)}}
    found = checkpoints.restore(trees["state"], like, {"mean_error"})["moments"]
    np.testing.assert_array_equal(found["mean_error"], np.zeros(2))
    assert found["mean_error"].dtype == np.float32
    with pytest.raises(ValueError, match="moments/mean_error is absent"):
        checkpoints.restore(trees["state"], like)


def test_restore_names_the_first_leaf_that_differs(tmp_path):
    tree = {name: np.zeros(2) for name in "abcd"}
    checkpoints.save(tmp_path / "16", {"state": tree}, {})
    _, trees = checkpoints.load(tmp_path / "16")
    like = {**tree, "b": np.zeros(3), "c": np.zeros(4)}
    with pytest.raises(ValueError, match=r"^the saved b is "):
        checkpoints.restore(trees["state"], like)


def test_restore_refuses_another_kind_of_key(tmp_path):
    checkpoints.save(tmp_path / "16", {"state": {"key": jax.random.key(0, impl="rbg")}}, {})
    _, trees = checkpoints.load(tmp_path / "16")
    like = {"key": jax.random.key(0, impl="unsafe_rbg")}
    with pytest.raises(ValueError, match=r"the saved key is key<rbg>\[\], not key<urbg>\[\]"):
        checkpoints.restore(trees["state"], like)


def test_nest_gives_dicts_by_the_parts_of_the_paths(tmp_path):
    key = jax.random.key(3)
    tree = {"agent": Pair({"kernel": jnp.bfloat16(0.5)}, (np.int32([7]), key)), "x": np.arange(2)}
    checkpoints.save(tmp_path / "16", {"state": tree}, {})
    nested = checkpoints.nest(checkpoints.load(tmp_path / "16")[1]["state"])
    expected = {
        "agent": {
            "first": {"kernel": np.asarray(tree["agent"].first["kernel"])},
            "second": {"0": np.int32([7]), "1": jax.random.key_data(key)},
        },
        "x": tree["x"],
    }
    assert_same_trees(nested, expected)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(nested))


def test_named_leaves():
    tree = {"agent": Pair([1, 2], None), "x": {"y": 3}}
    named = [("agent/first/0", 1), ("agent/first/1", 2), ("x/y", 3)]
    assert list(pytrees.named_leaves(tree)) == named


def test_a_recorder_keeps_the_newest(tmp_path):
    with Recorder(tmp_path, keep=2) as recorder:
        for env_steps in (0, 16, 32, 48, 64):
            recorder.save(env_steps, {"state": {"x": np.int32(env_steps)}}, {})
    assert checkpoints.existing(tmp_path) == [48, 64]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    for env_steps in (48, 64):
        _, trees = checkpoints.load(checkpoints.folder(tmp_path, env_steps))
        assert trees["state"]["x"] == env_steps


@pytest.fixture
def held(monkeypatch):
    """Saving waits until this event is set."""
    event, write_folder = threading.Event(), atomic_io.write_folder

    def write_later(*args):
        assert event.wait(60)
        write_folder(*args)

    monkeypatch.setattr(atomic_io, "write_folder", write_later)
    yield event
    event.set()


def test_a_recorder_saves_in_the_background_one_after_the_other(tmp_path, held):
    with Recorder(tmp_path, keep=5) as recorder:
        recorder.save(32, {"state": {"x": np.zeros(3)}}, {})
        assert checkpoints.existing(tmp_path) == []
        held.set()
        recorder.save(16, {"state": {"x": np.zeros(3)}}, {})
        assert 32 in checkpoints.existing(tmp_path)
        recorder.wait()
        assert checkpoints.existing(tmp_path) == [16, 32]


@partial(jax.jit, donate_argnums=0)
def go_on(state):
    return {"x": state["x"] + 1, "key": jax.vmap(jax.random.fold_in, (0, None))(state["key"], 1)}


def test_a_recorder_saves_the_state_that_it_was_given(tmp_path, held):
    """Even if its buffers are given away and overwritten before it is on the disk."""

    def begin():
        return {"x": jnp.arange(1_000.0), "key": jax.random.split(jax.random.key(3), 100)}

    state, array = begin(), np.arange(3)
    with Recorder(tmp_path, keep=1) as recorder:
        recorder.save(16, {"state": state, "array": array}, {})
        array += 1
        for _ in range(3):
            state = jax.block_until_ready(go_on(state))
        held.set()
    _, trees = checkpoints.load(checkpoints.folder(tmp_path, 16))
    assert_same_trees(checkpoints.restore(trees["state"], state), begin())
    assert_same(checkpoints.restore(trees["array"], array), np.arange(3))


@pytest.mark.parametrize("by", ["wait", "save", "check"])
def test_a_recorder_tells_at_the_next_call_that_the_disk_failed(tmp_path, monkeypatch, by):
    state = {"state": {"x": np.zeros(3)}}
    with Recorder(tmp_path, keep=1) as recorder:
        recorder.save(16, state, {})
        recorder.wait()
        with monkeypatch.context() as patched:
            patched.setattr(atomic_io, "write_folder", raise_write_error)
            recorder.save(32, state, {})
            futures.wait([recorder.under_way])
            with pytest.raises(atomic_io.WriteError, match="000032 could not be written"):
                recorder.save(48, state, {}) if by == "save" else getattr(recorder, by)()
        assert checkpoints.existing(tmp_path) == [16]  # not removed: no newer one came
        recorder.save(64, state, {})
        recorder.wait()
        assert checkpoints.existing(tmp_path) == [64]


def test_a_recorder_checks_without_waiting(tmp_path, held):
    with Recorder(tmp_path, keep=1) as recorder:
        recorder.check()
        recorder.save(16, {"state": {"x": np.zeros(3)}}, {})
        recorder.check()
        assert checkpoints.existing(tmp_path) == []
        held.set()
        recorder.wait()
        recorder.check()
    assert checkpoints.existing(tmp_path) == [16]


def raise_write_error(path, contents):
    raise atomic_io.WriteError(f"{path} could not be written")
