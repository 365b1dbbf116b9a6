"""Environments in gymnasium's form that hypothesis draws, and what they should come to, in the
plainest way: encoded observations, masks and actions."""

import copy
import itertools
import math
from decimal import Decimal
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from host_probes import ANSWERS
from hypothesis import strategies as st

SHAPES = st.lists(st.integers(1, 3), max_size=2).map(tuple)
KINDS = st.sampled_from([np.float16, np.float32, np.float64, np.uint8, np.int16, np.int64])
LEAVES = (
    st.builds(lambda shape, kind: spaces.Box(0, 255, shape, kind), SHAPES, KINDS)
    | st.builds(lambda shape: spaces.Box(-np.inf, np.inf, shape), SHAPES)
    | st.builds(lambda shape: spaces.Box(0, 1, shape, bool), SHAPES)
    | st.builds(spaces.Discrete, st.integers(1, 4), start=st.integers(-2, 2))
    | st.builds(spaces.MultiBinary, st.integers(1, 3))
    | st.builds(spaces.MultiDiscrete, st.lists(st.integers(1, 3), min_size=1, max_size=3))
)
OBSERVATIONS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(spaces.Tuple, st.lists(inner, min_size=1, max_size=2))
        | st.builds(spaces.Dict, st.dictionaries(st.sampled_from("abc"), inner, min_size=1))
    ),
    max_leaves=4,
)
BOUNDS = st.sampled_from([(-1.0, 1.0), (-np.inf, np.inf), (-np.inf, 2.0), (0.0, np.inf)])
DISCRETE = (
    st.builds(spaces.Discrete, st.integers(1, 4), start=st.integers(-2, 2))
    | st.builds(spaces.MultiBinary, st.integers(1, 3))
    | st.builds(spaces.MultiDiscrete, st.lists(st.integers(1, 3), min_size=1, max_size=3))
)
ACTIONS = (
    st.builds(
        lambda bounds, shape, kind: (
            spaces.Box(*map(np.array, zip(*bounds)), dtype=kind)
            if shape is None
            else spaces.Box(*bounds[0], shape, kind)
        ),
        st.lists(BOUNDS, min_size=1, max_size=3),
        st.sampled_from([None, (), (2, 2)]),
        st.sampled_from([np.float16, np.float32, np.float64]),
    )
    | st.builds(lambda kind: spaces.Box(0, 3, (2,), kind), st.sampled_from([np.uint8, np.int64]))
    | DISCRETE
)

REWARDS = {
    "float": float,
    "float64": np.float64,
    "float32": np.float32,
    "int": round,
    "bool": lambda x: x > 0,
    "0-d": np.array,
    "one element": lambda x: np.array([x]),
    "Decimal": Decimal,
}
FLAGS = {"bool": bool, "NumPy": np.bool_, "int": int, "array": lambda x: np.array([x])}
INFOS = [{}, {"a": {"b": [1, None]}}, {"mask": "none", "error": "none", "final_obs": 3}]
AT_END = ["right", "none valid", "missing", "None", "too short"]
"""The mask where an episode ends, which is not to be looked at."""
RIGHT = {"reward Decimal", "reward 0-d", "reward 1-d", "reward bool", "reward uint8"}
RIGHT |= {"flag NumPy", "flag 0"}
DEADLY = {"dead", "aborted"}
STEPS = {name: answer for name, answer in ANSWERS.items() if name not in RIGHT | DEADLY}
RESETS = {
    "bare": lambda obs, info: obs,
    "one value": lambda obs, info: (obs,),
    "three values": lambda obs, info: (obs, info, info),
    "None": lambda obs, info: None,
    "info None": lambda obs, info: (obs, None),
    "obs None": lambda obs, info: (None, info),
    "exit": ANSWERS["exit"],
    "interrupt": ANSWERS["interrupt"],
    "nothing said": ANSWERS["nothing said"],
}


class Fault(NamedTuple):
    where: str
    """"constructor", "reset", "step" or "close"."""
    what: str
    """Of `ANSWERS` or `RESETS`."""
    when: int
    """At its which step (from 1), or at which reset or construction (from 0)."""
    number: int | None
    """In the environment whose first seed is this number; 0 is the one that is only looked at. In
    all of them if None."""


class Plan(NamedTuple):
    """All that a generated environment does."""

    observation_space: spaces.Space
    action_space: spaces.Space
    length: int
    ends: str
    """"terminated", "truncated" or "both"."""
    reward: str
    flag: str
    info: dict
    mask: str | None
    """One of `AT_END`, or None."""
    as_lists: bool
    """Observed arrays as Python's lists."""
    fault: Fault | None = None


class Generated(gymnasium.Env):
    """Does what the plan says; its chance is of its seeds."""

    def __init__(self, plan: Plan, made: Any = None):
        self.plan, self.number, self.steps, self.resets = plan, None, 0, 0
        self.observation_space = copy.deepcopy(plan.observation_space)
        self.action_space = plan.action_space
        self._go_wrong("constructor", next(made) if made else 0)

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.number = seed if self.number is None else self.number
            self.rng = np.random.default_rng(seed)
            self.observation_space.seed(seed)
        self.age, resets, self.resets = 0, self.resets, self.resets + 1
        info = dict(self.plan.info)
        if self.plan.mask:
            info["action_mask"] = self._mask()
        answer = self._obs(), info
        return self._go_wrong("reset", resets, answer)

    def step(self, action):
        plan = self.plan
        assert self.action_space.contains(action), (action, self.action_space)
        self.steps, self.age = self.steps + 1, self.age + 1
        reward = REWARDS[plan.reward](self.rng.normal() + float(np.sum(action)))
        done, info = self.age == plan.length, dict(plan.info)
        terminated = FLAGS[plan.flag](done and plan.ends in ("terminated", "both"))
        truncated = FLAGS[plan.flag](done and plan.ends in ("truncated", "both"))
        if plan.mask:
            info["action_mask"] = self._mask()
            ends = {"none valid": np.zeros(2), "None": None, "too short": [1]}
            if done and plan.mask == "missing":
                del info["action_mask"]
            elif done and plan.mask in ends:
                info["action_mask"] = ends[plan.mask]
        answer = self._obs(), reward, terminated, truncated, info
        return self._go_wrong("step", self.steps, answer)

    def close(self):
        self._go_wrong("close", 0)

    def _obs(self):
        return as_lists(self.observation_space.sample(), self.plan.as_lists)

    def _mask(self):
        """Of all components, end to end, with one that is valid in each."""
        rows = [np.ones(n, int) for n in sizes(self.action_space)]
        for row in rows:
            row[:] = self.rng.integers(2, size=len(row))
            row[self.rng.integers(len(row))] = 1
        return np.concatenate(rows)

    def _go_wrong(self, where, when, answer=()):
        fault = self.plan.fault
        is_it = fault and (fault.where, fault.when) == (where, when)
        if not is_it or (where in ("reset", "step") and fault.number not in (self.number, None)):
            return answer
        return (RESETS if where == "reset" else ANSWERS)[fault.what](*answer)


@st.composite
def plans(draw, faulty: bool, observations=OBSERVATIONS, actions=ACTIONS) -> Plan:
    """With an environment of numbers 1 and 2 in mind, and one of number 0 that is looked at."""
    action_space = draw(actions)
    fault = None
    if faulty:
        where = draw(st.sampled_from(["constructor", "reset", "step", "step", "step", "close"]))
        what = {"reset": RESETS, "step": STEPS}.get(where, ["exit", "interrupt", "nothing said"])
        first = int(where == "step")
        when = 0 if where == "close" else draw(st.integers(first, 3))
        number = draw(st.integers(0, 2)) if where == "reset" else draw(st.integers(1, 2))
        fault = Fault(where, draw(st.sampled_from(sorted(what))), when, number)
    return Plan(
        draw(observations),
        action_space,
        draw(st.integers(1, 4)),
        draw(st.sampled_from(["terminated", "truncated", "both"])),
        draw(st.sampled_from(sorted(REWARDS))),
        draw(st.sampled_from(sorted(FLAGS))),
        draw(st.sampled_from(INFOS)),
        None if isinstance(action_space, spaces.Box) else draw(st.sampled_from([None, *AT_END])),
        draw(st.booleans()),
        fault,
    )


def as_lists(obs, is_wanted):
    if isinstance(obs, dict):
        return {name: as_lists(part, is_wanted) for name, part in obs.items()}
    if isinstance(obs, tuple):
        return tuple(as_lists(part, is_wanted) for part in obs)
    return obs.tolist() if is_wanted else obs


def sizes(space):
    """How many actions each component has."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiBinary):
        return [2] * math.prod(space.shape)
    return space.nvec.ravel().tolist()


def encoded(space, obs):
    """What an observation should come to: a vector but for a Box; float32, or of few bits."""
    if isinstance(space, spaces.Box | spaces.MultiBinary) and space.dtype.name in KEPT:
        return np.array(obs).astype(space.dtype)
    return in_float32(space, obs)


KEPT = ("bool", "int8", "uint8", "int16", "uint16")


def in_float32(space, obs):
    if isinstance(space, spaces.Dict):
        return np.concatenate(
            [in_float32(s, obs[name]).ravel() for name, s in space.spaces.items()]
        )
    if isinstance(space, spaces.Tuple):
        return np.concatenate([in_float32(s, part).ravel() for s, part in zip(space.spaces, obs)])
    if isinstance(space, spaces.Discrete):
        return np.eye(int(space.n), dtype=np.float32)[int(obs) - int(space.start)]
    if isinstance(space, spaces.MultiDiscrete):
        rows = [np.eye(int(n), dtype=np.float32)[int(x)] for n, x in zip(space.nvec, obs)]
        return np.concatenate(rows)
    array = np.array(obs, np.float64)
    is_box = isinstance(space, spaces.Box)
    is_bright = is_box and np.all(space.low == 0) and np.all(space.high == 255)
    return np.float32(array) * np.float32(1 / 255 if is_bright else 1)


def rows_of(space, flat):
    """What a mask should come to: a row for each component, or one vector for a single action."""
    ns = sizes(space)
    if isinstance(space, spaces.Discrete):
        return np.array(flat, bool)
    rows = np.zeros((len(ns), max(ns)), bool)
    for row, n, start in zip(rows, ns, itertools.accumulate(ns, initial=0)):
        row[:n] = flat[start : start + n]
    return rows


def choose(space, mask, rng):
    """An action numbered from 0, as the policy would give it, that is valid."""
    if isinstance(space, spaces.Box):
        action = np.clip(rng.normal(size=space.shape) * 3, space.low, space.high)
        return np.float32(np.rint(action) if space.dtype.kind in "iu" else np.float16(action))
    rows = mask if mask is None or mask.ndim == 2 else mask[None]
    rows = [np.ones(n, bool) for n in sizes(space)] if rows is None else rows
    chosen = np.int32([rng.choice(np.flatnonzero(row)) for row in rows])
    return chosen.reshape(space.shape)


def own(space, action):
    """An action numbered from 0 as the environment takes it."""
    if isinstance(space, spaces.Discrete):
        return int(action) + int(space.start)
    return action.astype(space.dtype)
