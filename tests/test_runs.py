"""Files of a run directory."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import runs

ROW = {name: i for i, name in enumerate(runs.METRICS)}


def test_create_writes_config_and_header(tmp_path):
    made = runs.create(tmp_path / "a" / "b", {"algorithm": "a2c"})
    assert json.loads((made / "config.json").read_text()) == {"algorithm": "a2c"}
    assert (made / "metrics.csv").read_text() == ",".join(runs.METRICS) + "\n"
    assert sorted(p.name for p in made.iterdir()) == ["config.json", "metrics.csv"]


def test_create_refuses_what_is_taken_or_unwritable(tmp_path):
    runs.create(tmp_path / "run", {})
    with pytest.raises(ValueError, match="already holds a run"):
        runs.create(tmp_path / "run", {"other": 1})
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {}
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="is not empty"):
        runs.create(tmp_path / "full", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        runs.create(tmp_path / "file" / "run", {})


def test_metrics_keep_every_digit(tmp_path):
    made = runs.create(tmp_path / "run", {})
    value = np.float32(0.1) + np.float32(1e-8)
    runs.append_metrics(made, [{**ROW, "policy_loss": str(value), "episodic_return": ""}])
    runs.append_metrics(made, [ROW, ROW])
    table = runs.read_metrics(made)
    assert np.float32(table["policy_loss"][0]) == value
    assert np.isnan(table["episodic_return"][0])
    np.testing.assert_array_equal(table["env_steps"], 1)
    assert set(table) == set(runs.METRICS)


def test_write_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    runs.write(path, b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        runs.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "key", [jax.random.key(3), jax.random.PRNGKey(3), jax.random.key(3, impl="rbg")]
)
def test_state_round_trip(tmp_path, key):
    state = {"x": jnp.arange(3.0), "key": key, "nested": (np.int32(7), None)}
    runs.save_state(tmp_path / "s.npz", state)
    back = runs.load_state(tmp_path / "s.npz", jax.eval_shape(lambda: state))
    assert jax.tree.structure(back) == jax.tree.structure(state)
    np.testing.assert_array_equal(back["x"], state["x"])
    assert back["nested"][0] == 7
    np.testing.assert_array_equal(jax.random.bits(back["key"]), jax.random.bits(key))


@pytest.mark.parametrize(
    ("like", "named"),
    [
        ({"x": np.zeros(4, np.float32)}, r"\['x'\] is float32\[3\], not float32\[4\]"),
        ({"x": np.zeros(3, np.int32)}, r"\['x'\] is float32\[3\], not int32\[3\]"),
        ({"y": np.zeros(3, np.float32)}, r"\['y'\] is absent"),
        ({}, r"\['x'\] is float32\[3\], not absent"),
    ],
)
def test_load_refuses_another_state(tmp_path, like, named):
    runs.save_state(tmp_path / "s.npz", {"x": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match=named):
        runs.load_state(tmp_path / "s.npz", like)
