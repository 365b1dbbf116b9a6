"""Values that environments are made with: from flags, in a config, in JSON, to the environment."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import probes
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rljax import Config, envs, sweep
from rljax.cli import space, training
from rljax.runs import records
from rljax.sweep import points, results
from rljax.types import Metrics
from rljax.utils import atomic_io, values

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(SCALARS, inner, max_size=3)
        | st.dictionaries(st.sampled_from(["tuple", "float", "dict"]), inner, max_size=1)
    ),
    max_leaves=8,
)
WRITTEN = [
    ("false", False),
    ("true", True),
    ("False", False),
    ("none", None),
    ("None", None),
    ("null", None),
    ("'false'", "false"),
    ("FALSE", "FALSE"),
    ("4x4", "4x4"),
    ("8", 8),
    ("-1.5e-3", -0.0015),
    ("[1,2]", [1, 2]),
    ("(1, (2, 'a'))", (1, (2, "a"))),
    ("{'a': 1, 2: None}", {"a": 1, 2: None}),
    ('{"a": [true, null]}', {"a": [True, None]}),
    ("NaN", "NaN"),
    ("1e999", float("inf")),
    ("", ""),
    ("a[0]", "a[0]"),
]


def same(value, other):
    """Equal, and of the same types all the way down."""
    return repr(value) == repr(other)


@settings(deadline=None)
@given(VALUES)
def test_a_value_comes_back_from_a_config_and_from_json(value):
    config = Config(env_kwargs={"x": value}).validate()
    assert isinstance(hash(config), int)
    assert same(values.thawed(config.env_kwargs)["x"], value)
    record = json.loads(atomic_io.json_bytes(records.config_record(config)))
    assert same(records.read_config({"config": record}).env_kwargs, config.env_kwargs)
    point = json.loads(atomic_io.json_bytes(points.recorded({"env_kwargs.x": value})))
    assert same(points.restored(point)["env_kwargs.x"], value)


@settings(deadline=None)
@given(VALUES)
def test_what_a_default_is_shown_as_is_read_as_it(value):
    """So help shows it, and a resumed run has it."""
    shown = values.written(value)
    if "inf" not in shown:  # Python writes no literal for it
        assert same(values.read(shown), value)


@pytest.mark.parametrize(("text", "value"), WRITTEN)
def test_flags_are_read_as_python_or_json_writes_them(text, value):
    asked = training.parse("a2c", "", ["--env-kwargs", f"x={text}", "y=1"])
    found = values.thawed(asked.config.env_kwargs)
    assert same(found, {"x": value, "y": 1})
    name, axis = space.parse(f"env_kwargs.x={text or repr('')},7", 10)
    assert same((name, axis), ("env_kwargs.x", [value, 7]))


@pytest.mark.parametrize("text", ["[1,", "{a:1}", "(1", "[a]"])
def test_what_looks_like_a_list_and_is_none_is_refused(text):
    """A shell takes the quotes out of {'a':1}."""
    with pytest.raises(ValueError, match="is no list, tuple or dict as Python or JSON") as caught:
        training.parse("a2c", "", ["--env-kwargs", f"x={text}"])
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="is no list, tuple or dict as Python or JSON"):
        space.parse(f"env_kwargs.x={text}", 10)


def test_an_axis_of_lists_and_strings():
    _, axis = space.parse("""env_kwargs.x=[1,(2,3)],{'a':1,'b':","},'a,b',true,false,1""", 10)
    assert same(axis, [[1, (2, 3)], {"a": 1, "b": ","}, "a,b", True, False, 1])
    found = [point["env_kwargs.x"] for point in sweep.grid({"env_kwargs.x": [*axis, 1]})]
    assert same(found, axis)  # True is none of what 1 is


def test_numpy_scalars_are_pythons():
    given = {"a": np.bool_(False), "b": [np.int64(3)], "c": np.float32(0.5), "d": np.array(2)}
    config = Config(env_kwargs=given, env_params={"e": np.float64(1.5)}).validate()
    assert same(values.thawed(config.env_kwargs), {"a": False, "b": [3], "c": 0.5, "d": 2})
    assert same(dict(config.env_params), {"e": 1.5})


def nested(levels):
    return [nested(levels - 1)] if levels else 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"env_kwargs": {"x": {1, 2}}}, r"env_kwargs: x = \{1, 2\}: must be a number, a bool, a"),
        ({"env_kwargs": {"x": np.ones(3)}}, r"env_kwargs: x = array\(\[1., 1., 1.\]\): must be"),
        ({"env_kwargs": {"x": [b"a"]}}, r"env_kwargs: x = \[b'a'\]: must be"),
        ({"env_kwargs": {"x": {(1, 2): 3}}}, r"env_kwargs: x = \{\(1, 2\): 3\}: must be"),
        ({"env_kwargs": {"x": nested(40)}}, r"env_kwargs: x = \[\[\[\[.*: must be"),
        ({"env_kwargs": {"x": np.ones((90, 90))}}, r"env_kwargs: x = array.*\.\.\.: must be"),
        ({"env_kwargs": {1: 2}}, r"env_kwargs = \(\(1, 2\),\): must be a dict, its keys strings"),
        ({"env_kwargs": {1: 2, "a": 3}}, "must be a dict, its keys strings"),
        (
            {"env_params": {"x": ["a"]}},
            r"env_params: x = \('a',\): must be a number, a bool, a str",
        ),
        (
            {"env_params": {"x": None}},
            "env_params: x = None: must be a number, a bool, a string or a tu",
        ),
    ],
)
def test_other_values_are_refused_in_one_line(settings, message):
    with pytest.raises(TypeError, match=message) as caught:
        Config(**settings).validate()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_an_environment_has_values_of_its_own():
    config = Config(env_kwargs={"x": [1, {"a": None}], "y": (2,), "z": False}).validate()
    first, second = (probe_of(config) for _ in range(2))
    assert same(first, {"x": [1, {"a": None}], "y": (2,), "z": False})
    first["x"][1].pop("a")
    assert same(second["x"], [1, {"a": None}])
    assert same(probe_of(config)["x"], [1, {"a": None}])


def probe_of(config):
    made = []

    def make(**kwargs):
        made.append(probes.Configured(**kwargs))
        return made[0]

    envs.make(make, config.env_kwargs)
    return made[0].kwargs


def test_a_sweep_keeps_values_apart_and_its_table_reads_them(tmp_path):
    axis = {"env_kwargs.x": [[1, 2], None, (3, "a\nb"), {"a": ","}]}
    config = Config(env="probes:Configured", env_kwargs={"y": 1})
    groups = sweep.plan(config, sweep.grid(axis), [0])
    found = [values.thawed(group.trials[0].config.env_kwargs) for group in groups]
    assert same(found, [{"x": x, "y": 1} for x in axis["env_kwargs.x"]])
    written = ["[1, 2]", "None", "(3, 'a\\nb')", "{'a': ','}"]
    assert read_again(groups, tmp_path) == written
    groups = sweep.plan(config, sweep.grid({"env_kwargs.x": [True, False]}), [0])
    assert read_again(groups, tmp_path) == [True, False]


def test_text_of_several_lines_or_none_breaks_no_table(tmp_path):
    texts = ["a\nb", "", "c\x85d", "e\rf"]
    groups = sweep.plan(Config(), sweep.grid({"env_kwargs.x": texts}), [0])
    assert read_again(groups, tmp_path) == texts


def read_again(groups, folder):
    """The values of each group, out of a table of all."""
    text = results.lines(_finished(groups[0].trials))
    names = text.partition("\n")[0].split(",")
    text += "".join(results.lines(_finished(group.trials), names) for group in groups[1:])
    (folder / "results.csv").write_bytes(text.encode())
    return sweep.read(folder)["env_kwargs.x"][::2].tolist()


def _finished(trials):
    ones = np.ones((2, len(trials)), np.float32)
    metrics = Metrics(ones, ones, ones, ones, {"loss": ones}, ones, ones, 0 * ones)
    return sweep.Result(trials, metrics, np.ones(len(trials)))


def test_points_of_a_file_have_lists_and_infinity(tmp_path):
    path = tmp_path / "points.json"
    listed = [{"env_kwargs.x": [1, True], "max_grad_norm": "inf", "hidden_sizes": [8]}]
    path.write_text(json.dumps(listed))
    expected = {"env_kwargs.x": [1, True], "max_grad_norm": float("inf"), "hidden_sizes": (8,)}
    assert same(space.listed(path, 10), [expected])
    again = json.loads(
        atomic_io.json_bytes([points.recorded(point) for point in space.listed(path, 9)])
    )
    assert same(space.restored(again, "again"), [expected])


def test_points_without_end_are_refused(monkeypatch):
    monkeypatch.setattr(atomic_io, "LARGEST", 2**20)
    with pytest.raises(ValueError, match=r"points = '/dev/zero': is no JSON \(it is very large\)"):
        space.listed(Path("/dev/zero"), 10)


def test_settings_that_are_not_finite_come_back_from_valid_json():
    config = dataclasses.replace(
        Config(), max_grad_norm=np.float32("inf"), learning_rate=np.float32(0.1)
    )
    text = atomic_io.json_bytes(records.config_record(config))
    record = json.loads(text, parse_constant=pytest.fail)
    assert (record["max_grad_norm"], record["learning_rate"]) == ("inf", float(np.float32(0.1)))
    assert records.read_config({"config": record}) == config
    before = json.loads('{"config": {"max_grad_norm": Infinity}}')  # as it was written
    assert records.read_config(before).max_grad_norm == float("inf")
    with pytest.raises(TypeError, match="learning_rate = 'fast': must be a number"):
        records.read_config({"config": {"learning_rate": "fast"}})
    with pytest.raises(ValueError, match=r"learning_rate = 1000.*: must be a number that a float"):
        Config(learning_rate=10**400).validate()
    with pytest.raises(ValueError, match="below 2"):
        Config(num_envs=2**31, total_timesteps=2**50).validate()
