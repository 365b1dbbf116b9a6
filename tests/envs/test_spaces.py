"""Spaces: what is encoded, split and masked, against gymnasium's own functions."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces as declared

from rljax.envs import encoding, spaces
from rljax.envs.spaces import Box, Discrete, MultiDiscrete, Numbers, OneHot, Parts

INF = float("inf")
NESTED = declared.Dict(
    {
        "where": declared.Box(-1, 1, (2, 3), np.float64),
        "what": declared.Discrete(3, start=-1),
        "rest": declared.Tuple(
            (
                declared.MultiBinary(2),
                declared.MultiDiscrete([2, 4]),
                declared.Dict({"z": declared.Box(0, 9, (), np.int64), "a": declared.Discrete(2)}),
            )
        ),
    }
)


@pytest.mark.parametrize(
    "space",
    [
        declared.Box(-1, 1, (4,)),
        declared.Box(-5, 5, (2, 2), np.int8),
        declared.Box(0, 200, (3,), np.uint8),
        declared.Discrete(4),
        declared.Discrete(4, start=-2),
        declared.MultiBinary((2, 3)),
        declared.MultiDiscrete([3, 1, 2]),
        declared.MultiDiscrete([[3, 2], [2, 2]], start=[[1, 0], [0, -1]]),
        NESTED,
    ],
    ids=str,
)
def test_observations_are_flattened_as_by_gymnasium(space):
    space.seed(0)
    kind = spaces.observation(space)
    for _ in range(10):
        obs = space.sample()
        expected = declared.flatten(space, obs)
        for xp in (np, jnp):
            found = encoding.encode(kind, obs, xp)
            assert (found.shape, found.dtype) == (kind.shape, "float32")
            np.testing.assert_allclose(found.ravel(), expected.astype(np.float32))


@pytest.mark.parametrize("xp", [np, jnp])
def test_small_whole_numbers_do_not_overflow(xp):
    kind = spaces.observation(declared.Discrete(256, start=-128))
    assert encoding.encode(kind, xp.int8(100), xp).argmax() == 228


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.int64, np.uint64, bool])
@pytest.mark.filterwarnings("error")
def test_no_action_is_cast_to_what_its_type_does_not_hold(dtype):
    kind = np.dtype(dtype).kind
    low, high = {"b": (0, 1), "u": (0, 2**64 - 2)}.get(kind, (-np.inf, np.inf))
    space = declared.Box(low, high, (2,), dtype)
    found = encoding.decoder(space)(np.float32([-1e38, 1e38]))
    assert found.dtype == dtype
    assert np.all(np.isfinite(found))
    assert found[0] <= 0
    assert found[1] >= (1 if kind == "b" else 100)
    assert space.contains(found)


@pytest.mark.filterwarnings("error")
def test_bounds_beyond_float32_are_none():
    space = declared.Box(np.float64(-1e39), np.float64(1), (1,), np.float64)
    assert spaces.action_space(space) == Box((1,), (-INF,), (1.0,))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64])
def test_arrays_keep_their_shape_and_numbers_from_0_to_255_are_scaled(dtype):
    box = declared.Box(0, 255, (4, 5, 3), dtype)
    like = jax.ShapeDtypeStruct((4, 5, 3), dtype)
    for image in (spaces.observation(box), spaces.observed(box, like)):
        assert image == Numbers((4, 5, 3), 1 / 255)
    encoded = encoding.encode(image, np.full((4, 5, 3), 51, dtype))
    np.testing.assert_allclose(encoded, 0.2, rtol=1e-6)
    half = declared.Box(np.float32([0, 0]), np.float32([255, 1]))
    assert spaces.observation(half) == Numbers((2,))


def test_pieces_come_apart_as_they_are_nested():
    kind = spaces.observation(NESTED)
    assert kind.shape == (6 + 3 + 2 + (2 + 4) + 1 + 2,)
    NESTED.seed(1)
    samples = [NESTED.sample() for _ in range(5)]
    pieces = encoding.split(kind, np.stack([encoding.encode(kind, obs) for obs in samples]))
    for i, obs in enumerate(samples):
        np.testing.assert_allclose(pieces["where"][i], obs["where"], rtol=1e-6)
        np.testing.assert_array_equal(pieces["what"][i], np.eye(3)[obs["what"] + 1])
        bits, two, last = pieces["rest"]
        np.testing.assert_array_equal(bits[i], obs["rest"][0])
        np.testing.assert_array_equal(two[i], np.eye(6)[[0, 2] + obs["rest"][1]].sum(axis=0))
        assert last["z"][i] == obs["rest"][2]["z"]
        np.testing.assert_array_equal(last["a"][i], np.eye(2)[obs["rest"][2]["a"]])


@pytest.mark.parametrize(
    ("space", "obs", "message"),
    [
        (declared.Box(-1, 1, (4,)), np.zeros(3), r"shape \(3,\), not \(4,\)"),
        (declared.Box(-1, 1, (4,)), np.zeros((4, 1)), r"shape \(4, 1\), not \(4,\)"),
        (declared.Discrete(3), 3, r"observation \[3\] is outside of its space"),
        (declared.MultiDiscrete([2, 2]), [1], "1 whole numbers, not 2"),
        (declared.Discrete(3), 1.5, "is outside of its space"),
        (declared.Tuple((declared.Discrete(2),) * 2), (0, 1, 1), "must be a tuple of 2, not 3"),
        (declared.Tuple((declared.Discrete(2),) * 2), {"a": 0}, "a tuple of 2, not dict"),
        (declared.Dict({"a": declared.Discrete(2)}), (0,), "must be a dict, not tuple"),
        (declared.Dict({"a": declared.Discrete(2)}), {"b": 0}, r"keys \['b'\], not \['a'\]"),
    ],
)
def test_observations_outside_of_their_space(space, obs, message):
    with pytest.raises(ValueError, match=message):
        encoding.encode(spaces.observation(space), obs)


@pytest.mark.parametrize(
    "space",
    [
        declared.Text(3),
        declared.Sequence(declared.Discrete(2)),
        declared.OneOf((declared.Discrete(2), declared.Discrete(3))),
        declared.Dict({"a": declared.Text(3)}),
    ],
    ids=str,
)
def test_observation_spaces_that_are_refused(space):
    with pytest.raises(ValueError, match=r"unsupported observation space .*: must be Box"):
        spaces.observation(space)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (declared.Discrete(3, start=5), Discrete(3)),
        (declared.MultiDiscrete([2, 3]), MultiDiscrete((2,), (2, 3))),
        (declared.MultiDiscrete([[2, 3]]), MultiDiscrete((1, 2), (2, 3))),
        (declared.MultiBinary(2), MultiDiscrete((2,), (2, 2))),
        (
            declared.Box(np.array([-INF, -1]), np.array([2, INF]), dtype=np.float64),
            Box((2,), (-INF, -1.0), (2.0, INF)),
        ),
    ],
    ids=str,
)
def test_action_spaces(space, expected):
    assert spaces.action_space(space) == expected


@pytest.mark.parametrize("space", [declared.Dict({"a": declared.Discrete(2)}), declared.Text(2)])
def test_action_spaces_that_are_refused(space):
    with pytest.raises(ValueError, match=r"unsupported action space .*: must be Discrete"):
        spaces.action_space(space)


@pytest.mark.parametrize("xp", [np, jnp])
def test_masks_of_several_actions_become_rows(xp):
    space = MultiDiscrete((2,), (2, 3))
    rows = [[False, True, False], [True, False, True]]
    for given in ([0, 1, 1, 0, 1], (np.array([0, 1]), np.array([1, 0, 1]))):
        found = spaces.mask(space, np.array(given) if isinstance(given, list) else given, xp)
        np.testing.assert_array_equal(found, rows)
    assert spaces.mask(Discrete(2), np.array([0, 1], np.int8), xp).tolist() == [False, True]


@pytest.mark.parametrize(
    ("space", "given", "message"),
    [
        (Discrete(3), [1, 1], "2 numbers, not 3"),
        (Discrete(2), [0, 0], "allows no action"),
        (MultiDiscrete((2,), (2, 2)), [1, 1, 0, 0], "allows no action"),
        (Discrete(1), None, "action_mask is .*None.*: must be of numbers"),
        (Discrete(2), ["0", "1"], "action_mask is .*: must be of numbers"),
    ],
)
def test_masks_that_are_refused(space, given, message):
    with pytest.raises(ValueError, match=message):
        spaces.mask(space, np.array(given))


def test_what_an_environment_gives_goes_before_what_it_declares():
    declared_shape = gymnasium.spaces.Box(-1, 1, (7,))
    assert spaces.observed(declared_shape, np.zeros((2, 2))) == Numbers((2, 2))
    assert spaces.observed(declared.Discrete(4), np.zeros(3)) == Numbers((3,))
    assert spaces.observed(declared.Discrete(4), np.int32(3)) == OneHot((4,), (0,))
    assert spaces.observed(None, {"a": np.zeros(2), "b": (np.zeros(1),)}) == Parts(
        (Numbers((2,)), Parts((Numbers((1,)),), None)), ("a", "b")
    )
