"""What earlier versions saved, in the form of today."""

from collections.abc import Mapping

import numpy as np

from rljax.config import Config, at_row_end, default_log_interval

NEW_LEAVES = frozenset({"mean_error", "var_error", "row_error", "loss"})
"""Parts of states that checkpoints of earlier versions lack; they start at zero."""

_ROWS = {"sums": "row", "sums_error": "row_error"}
_LOSSES = ("policy_loss", "value_loss", "entropy", "explained_variance")


def state(arrays: Mapping[str, np.ndarray], config: Config) -> dict[str, np.ndarray]:
    """The arrays of a saved state, by the names of today.

    Before, a state's row of metrics was emptied when the next one began: of a state at the end of a
    row it is emptied here.

    Args:
        config: the one that the checkpoint was saved with.
    """
    if "sums/updates" in arrays:
        arrays = dict(_renamed(name, array) for name, array in arrays.items())
    elif "row/figures" in arrays:
        arrays = {**arrays, "row/metrics": _a3c_metrics(arrays["row/figures"])}
        del arrays["row/figures"]
    else:
        return dict(arrays)
    interval = default_log_interval(config)
    ended = [at_row_end(config, int(n), interval) for n in arrays["learner/updates"]]
    for name in arrays:
        if name.startswith(("row/", "row_error/")):
            arrays[name] = arrays[name].copy()
            arrays[name][np.array(ended)] = 0
    return arrays


def evaluated(
    manifest: Mapping, updates: np.ndarray, batch_size: int, together: bool
) -> np.ndarray:
    """Environment steps [S] of each seed at its last evaluation, of which before only those of the
    seeds in training were saved.

    Args:
        manifest: of a checkpoint.
        updates: [S] at the checkpoint.
        together: whether all seeds are trained in one program.
    """
    saved = manifest["progress"].get("evaluated", 0)
    if isinstance(saved, list):
        return np.array(saved, int)
    steps = updates * batch_size
    in_training = np.flatnonzero(updates == manifest["updates"])
    steps[in_training if together else in_training[-1:]] = saved
    return steps


def _renamed(name, array):
    row, _, field = name.partition("/")
    if row not in _ROWS:
        return name, array
    return f"{_ROWS[row]}/{'losses/' * (field in _LOSSES)}{field}", array


def _a3c_metrics(figures):
    """Vectors [S, 8] in the order of `BatchMetrics` of today, with a loss of 0 in it."""
    *episodes, policy_loss, value_loss, entropy, explained, norm = np.moveaxis(figures, -1, 0)
    losses = (entropy, explained, np.zeros_like(norm), policy_loss, value_loss)
    return np.stack([*episodes, *losses, norm], axis=-1)
