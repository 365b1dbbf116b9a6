"""Runs as library calls: train, resume, load; and what a run leaves on disk.

    run = rljax.train("a2c", env="CartPole-v1", num_seeds=4, run_dir="runs/mine")

options, settings   the options of a run; all its settings, from keywords or a saved run
training            a run from its beginning to its end
loop                follows the chunks of an algorithm: logs, evaluates, saves, stops in order
start, finish       a fresh directory or a checkpoint; the summary and the learning curve
run                 the `Run` object; load
export              a policy as two files, for programs without JAX
best                the policies of the best evaluations
directory           config.json, the lock, versions
recorder            where rows and checkpoints are written
checkpoints         whole states, verified
records             settings and manifests, checked when they are read
compatibility       what earlier versions saved
interrupts          Ctrl-C and SIGTERM
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rljax.config import Config
from rljax.runs import settings as settings_module
from rljax.runs.run import Run, load

__all__ = ["Run", "load", "resume", "train"]


def train(
    algorithm: str = "a2c",
    env: Any = None,
    *,
    config: Config | None = None,
    run_dir: str | os.PathLike | None = None,
    on_log: Callable | None = None,
    loggers: Sequence[Any] = (),
    **settings: Any,
) -> Run:
    """Trains; Ctrl-C, or a notebook's stop button, ends the run in order. A3C, and
    `device="cpu"`, set JAX to the CPU for the rest of the process, unless JAX has already started.

    Args:
        algorithm: "a2c", "a3c" or "dqn".
        env: an id or an object, as `Config.env`. Settings start from its preset, if it has one.
        config: settings to start from instead.
        run_dir: the directory that the run is written to; without one nothing is written.
        on_log: called with a `loop.LogRow` at each row of metrics: `row.metrics` is a list of
            dicts, one for each seed, and `row.states` the algorithm's states [S], which an
            accelerator deletes in the next chunk: copy what you keep. If it returns "stop" the run
            ends in order, with the status "stopped".
        loggers: objects that are given the rows, as `rljax.loggers.trackers` describes them; those
            of the setting `log` are given by name.
        settings: fields of `Config`, of `options.RunOptions` and, for A3C, of `WorkerConfig`
            or, for DQN, of `DQNConfig`.

    Returns:
        The `Run`. Its `status` tells whether it was interrupted, or diverged.

    Raises:
        ValueError, TypeError: a setting is unknown or wrong; nothing is left behind.
        TrainingError: the environment or a worker failed; what was trained is saved if there is a
            run directory, on an accelerator up to the last checkpoint.
        WriteError: something could not be written; what was saved before is whole.
    """
    asked = settings_module.start_from(algorithm, env, settings.get("preset"))
    if config is not None:
        if not isinstance(config, Config):
            raise TypeError(f"config = {config!r}: must be a Config")
        asked = asked._replace(config=config)
        settings = {**settings, **({} if env is None else {"env": env})}
    if settings.get("resume"):
        raise TypeError("resume: use rljax.resume(run_dir)")
    path = None if run_dir is None else Path(run_dir)
    return _execute(asked.replace({**settings, "run_dir": path}), on_log, False, loggers)


def resume(
    run_dir: str | os.PathLike,
    *,
    on_log: Callable | None = None,
    loggers: Sequence[Any] = (),
    **changes: Any,
) -> Run:
    """Resumes a run from its newest whole checkpoint, to the bits of an undisturbed run.

    Args:
        on_log, loggers: as for `train`. Loggers are given the rows of the whole run.
        changes: `total_timesteps`, which may be raised, and options that change nothing of what is
            learned: `checkpoint_every`, `keep_checkpoints`, `stop_at_return`, `device`, `quiet`,
            `max_worker_restarts`.

    Returns:
        The `Run`; if it was complete, what `load` gives.

    Raises:
        ValueError, TypeError: there is no run, no whole checkpoint, or another setting is changed.
        TrainingError, WriteError: as `train` does.
    """
    before = settings_module.saved(Path(run_dir))
    after = before.replace(changes)
    settings_module.check_resumable(before, after)
    return _execute(after, on_log, True, loggers)


def _execute(asked, on_log, resume, loggers):
    from rljax.runs import training

    run = training.execute(asked, on_log, resume, loggers)
    for text in divergences(run.summary):
        warnings.warn(text, stacklevel=3)
    if run.error:
        raise run.error
    return run


def divergences(summary: Mapping) -> list[str]:
    """A sentence for each seed that diverged."""
    return [
        f"seed {seed} diverged: gradient or parameters not finite at update {update}"
        for seed, update in summary.get("diverged", {}).items()
    ]
