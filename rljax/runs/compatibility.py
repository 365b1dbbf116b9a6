"""Converts what earlier versions saved."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rljax.config import Config, at_row_end, default_log_interval

# Parts of states that checkpoints of earlier versions lack; they start at zero.
NEW_LEAVES = frozenset({"mean_error", "var_error", "row_error", "loss"})
_ROWS = {"sums": "row", "sums_error": "row_error"}
_LOSSES = ("policy_loss", "value_loss", "entropy", "explained_variance")


def state(
    arrays: Mapping[str, np.ndarray], config: Config, observation: Any
) -> dict[str, np.ndarray]:
    """The arrays of a state saved with this config, by their current names.

    Earlier versions emptied a row of metrics when the next one began; here it is empty at the end.
    They kept all observations as float32, scaled.

    Args:
        observation: the `spaces.Observation` of the config's environment.
    """
    arrays = {name: _unscaled(observation, name, array) for name, array in arrays.items()}
    if "sums/updates" in arrays:
        arrays = dict(_renamed(name, array) for name, array in arrays.items())
    elif "row/figures" in arrays:
        arrays = {**arrays, "row/metrics": _a3c_metrics(arrays["row/figures"])}
        del arrays["row/figures"]
    else:
        return arrays
    interval = default_log_interval(config)
    ended = [at_row_end(config, int(n), interval) for n in arrays["learner/updates"]]
    for name in arrays:
        if name.startswith(("row/", "row_error/")):
            arrays[name] = arrays[name].copy()
            arrays[name][np.array(ended)] = 0
    return arrays


def evaluated(manifest: Mapping, updates: np.ndarray, batch_size: int, together: bool):
    """Environment steps [S] at each seed's last evaluation, of a checkpoint after `updates` [S].
    Earlier versions saved them only of the seeds in training: all, if they train together."""
    saved = manifest["progress"].get("evaluated", 0)
    if isinstance(saved, list):
        return np.array(saved, int)
    steps = updates * batch_size
    in_training = np.flatnonzero(updates == manifest["updates"])
    steps[in_training if together else in_training[-1:]] = saved
    return steps


def _unscaled(kind, name, array):
    dtype = getattr(kind, "dtype", "float32")
    is_same = dtype == array.dtype.name or array.dtype != np.float32
    if is_same or name not in ("actor/obs", "actors/obs"):
        return array
    return np.rint(array / np.float32(kind.scale)).astype(dtype)


def _renamed(name, array):
    row, _, field = name.partition("/")
    if row not in _ROWS:
        return name, array
    return f"{_ROWS[row]}/{'losses/' * (field in _LOSSES)}{field}", array


def _a3c_metrics(numbers):
    """Vectors [S, 8] in the current order of `BatchMetrics`, with a loss of 0."""
    *episodes, policy_loss, value_loss, entropy, explained, norm = np.moveaxis(numbers, -1, 0)
    losses = (entropy, explained, np.zeros_like(norm), policy_loss, value_loss)
    return np.stack([*episodes, *losses, norm], axis=-1)
