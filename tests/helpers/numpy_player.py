"""Plays an exported policy in NumPy alone, from what rljax/runs/export.py says of its two files."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

ACTIVATIONS = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "elu": lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x * sigmoid(x),
}


class Exported(NamedTuple):
    arrays: dict[str, np.ndarray]
    settings: dict[str, Any]
    policy: dict[str, Any]


class Memory(NamedTuple):
    """From one step of an episode to the next."""

    carry: Any
    last_action: np.ndarray
    last_reward: float
    frames: tuple = ()


def load(path):
    path = Path(path)
    record = json.loads(path.with_suffix(".json").read_text())
    return Exported(safetensors.numpy.load_file(path), record["config"], record["policy"])


def first(exported):
    """The memory at the first step of an episode."""
    arrays, core = exported.arrays, exported.settings["core"]
    carry = {
        "none": lambda: (),
        "lstm": lambda: (arrays["carry.cores.0.0"], arrays["carry.cores.0.1"]),
        "gru": lambda: arrays["carry.cores.0.0"],
    }[core]()
    last_action = arrays.get("carry.last_action", np.zeros(0))
    return Memory(carry, last_action, arrays.get("carry.last_reward", np.float32(0)))


def act(exported, memory, obs, mask=None):
    """(the greedy action for the environment, the memory without the reward that follows)."""
    x = encoded(exported.policy["observation"], obs)
    frames = (*(memory.frames or (x,) * exported.settings["frame_stack"])[1:], x)
    x = torso(exported, standardized(exported, joined(exported, frames)))
    x, carry = core(exported, memory, x)
    out = dense(exported, "actor_head", x)
    action, last_action = chosen(exported, out, mask)
    return action, Memory(carry, last_action, np.float32(0), frames)


def encoded(kind, obs):
    if kind["kind"] == "Parts":
        parts = obs if kind["names"] is None else [obs[name] for name in kind["names"]]
        pieces = [encoded(part, x).ravel() for part, x in zip(kind["parts"], parts)]
        return np.concatenate(pieces)
    if kind["kind"] == "OneHot":
        rows = zip(np.ravel(obs), kind["n"], kind["start"])
        return np.concatenate([np.arange(n) == x - start for x, n, start in rows]).astype("f4")
    return np.float32(obs) * np.float32(kind["scale"])


def joined(exported, frames):
    number, kind = len(frames), exported.policy["observation"]
    if number == 1:
        return frames[0]
    shape = frames[0].shape
    if len(shape) == 2 and kind.get("scale", 1.0) != 1.0:
        frames = [x[..., None] for x in frames]
    is_first = len(shape) == 3 and shape[0] < min(shape[1:])
    return np.concatenate([np.atleast_1d(x) for x in frames], 0 if is_first else -1)


def standardized(exported, x):
    if not exported.settings["normalize_observations"]:
        return x
    arrays, policy = exported.arrays, exported.policy
    scaled = x - arrays["obs_moments.mean"]
    scaled = scaled / np.sqrt(arrays["obs_moments.var"] + np.float32(policy["eps"]))
    return np.clip(scaled, -policy["clip"], policy["clip"])


def torso(exported, x):
    name, policy = "actor_torso", exported.policy
    layers = policy if policy["torso"] == "CNN" else exported.settings
    activation = ACTIVATIONS[layers["activation"]]
    if policy["torso"] == "CNN":
        x = channels_last(policy["channels"], x)
        for i, (_, width, stride) in enumerate(policy["convolutions"]):
            conv = f"{name}.conv" + f"_{i}" * (len(policy["convolutions"]) > 1)
            x = activation(dense(exported, conv, patches(x, width, stride)))
        name = f"{name}.MLP_0"
    x = x.ravel()
    for index in range(len(layers["hidden_sizes"])):
        x = activation(dense(exported, f"{name}.Dense_{index}", x))
    return x


def channels_last(channels, x):
    if channels == "first":
        return np.moveaxis(x, 0, -1)
    return x if channels == "last" else x[..., None]


def patches(x, width, stride):
    """[(H - K) // S + 1, (W - K) // S + 1, K * K * C]."""
    rows = range(0, x.shape[0] - width + 1, stride)
    columns = range(0, x.shape[1] - width + 1, stride)
    return np.array([[x[i : i + width, j : j + width].ravel() for j in columns] for i in rows])


def core(exported, memory, x):
    """(outputs, carry)."""
    settings, arrays = exported.settings, exported.arrays
    if settings["core"] == "none":
        return x, ()
    if "last_action" in settings["core_inputs"]:
        x = np.concatenate([x, memory.last_action])
    if "last_reward" in settings["core_inputs"]:
        x = np.append(x, np.float32(memory.last_reward))
    x = dense(exported, "actor_core.inputs", x)
    if settings["core"] == "lstm":
        c, h = memory.carry
        i, f, g, o = np.split(x + h @ arrays["params.params.actor_core.recurrent.kernel"], 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return h, (c, h)
    h = memory.carry
    y = dense(exported, "actor_core.recurrent", h)
    (x_r, x_z, x_n), (y_r, y_z, y_n) = np.split(x, 3), np.split(y, 3)
    r, z = sigmoid(x_r + y_r), sigmoid(x_z + y_z)
    h = (1 - z) * np.tanh(x_n + r * y_n) + z * h
    return h, h


def chosen(exported, out, mask):
    """(the action for the environment, as a core takes it)."""
    space = exported.policy["action_space"]
    if space["kind"] == "Box":
        low, high = (np.array(space[name], "f4") for name in ("low", "high"))
        squashed = low + (high - low) * (1 + np.tanh(out)) / 2
        action = squashed if exported.settings["action_bounds"] == "tanh" else out
        return np.clip(action, low, high).reshape(space["shape"]), out
    counts = np.array([space["n"]] if space["kind"] == "Discrete" else space["nvec"])
    is_valid = np.arange(counts.max()) < counts[:, None]
    if mask is not None:
        is_valid = np.logical_and(is_valid, np.reshape(mask, is_valid.shape))
    action = np.where(is_valid, out.reshape(is_valid.shape), -np.inf).argmax(axis=1)
    hot = (action[:, None] == np.arange(counts.max())).astype("f4").ravel()
    return action.reshape(space.get("shape", ())), hot


def dense(exported, name, x):
    kernel, bias = (exported.arrays[f"params.params.{name}.{n}"] for n in ("kernel", "bias"))
    return x @ kernel + bias


def sigmoid(x):
    return 1 / (1 + np.exp(-x))
