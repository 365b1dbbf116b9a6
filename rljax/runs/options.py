"""The options of a run: they do not change what is learned from a seed. Needs no JAX."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

from rljax.config import MAX_EPISODE_STEPS, Config, default_log_interval
from rljax.utils import hosts
from rljax.utils.checks import check

DEVICES = ("auto", "cpu", "gpu")
ENGINES = ("local", "ray")
EVAL_MODES = ("greedy", "sampled")
LOG_FORMATS = ("auto", "plain", "json")

# Options that change what the files of a run hold: a resumed run keeps them.
FIXED = (
    *("preset", "seed", "num_seeds", "log_interval"),
    *("eval_episodes", "eval_mode", "eval_every", "eval_envs", "eval_max_steps"),
)
# Options that a resumed run has from its record, unless it is given others.
KEPT = (
    *(*FIXED, "render_every", "checkpoint_every", "keep_checkpoints"),
    *("device", "devices", "engine", "ray_address", "stop_at_return", "log"),
)


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Options of a run: they do not change what is learned from a seed."""

    preset: str | None = None
    """Settings to start from: an environment id, or 'none'. By default those of --env."""
    seed: int = 0
    """The first seed."""
    num_seeds: int = 8
    """Seeds: --seed and the following ones. A2C, where environments are in JAX, and DQN train them
    at once; else they are trained one after another."""
    run_dir: Path | None = None
    """Where the run is written. By default of the scripts runs/{env}__{algorithm}__{seed}__{time};
    from Python nothing is written by default."""
    device: Literal[DEVICES] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""
    devices: int | None = None
    """Local devices that seeds, and the environments of few, share; by default those with which it
    is fastest. Several round otherwise than one."""
    coordinator: str | None = None
    """Of several processes that train as one: HOST:PORT of process 0, which alone writes; or auto,
    as Slurm's or Open MPI's variables say."""
    num_processes: int | None = None
    """How many they are, with --coordinator HOST:PORT."""
    process_id: int | None = None
    """Which of them this is, from 0."""
    engine: Literal[ENGINES] = "local"
    """Where A3C's workers are: processes of this machine, or actors of a Ray cluster (an extra)."""
    ray_address: str | None = None
    """host:port of the Ray cluster, or auto, which is the one that runs on this machine; by default
    that one or, if there is none, a new one for this run."""
    log_interval: int | None = None
    """Updates averaged into one row of metrics. By default a hundredth of the run."""
    stop_at_return: float | None = None
    """Stop when the mean over all seeds of the last rows' episodic return is at least this."""
    eval_episodes: int = 100
    """Full episodes per seed in an evaluation; 0 turns the final one off."""
    eval_mode: Literal[EVAL_MODES] = "greedy"
    """Whether evaluations take the policy's mode or sample from it; of DQN's both are greedy."""
    eval_every: int = 0
    """Also evaluate during training, about every this number of environment steps; 0 never."""
    eval_envs: int | None = None
    """Environments that Python steps, which an evaluation opens at once, beside those of training;
    by default --num-envs, at most 16."""
    eval_max_steps: int = MAX_EPISODE_STEPS
    """An evaluation's episode that has not ended after this number of steps is cut."""
    render_every: int = 0
    """Also draw an episode of the seed in training, the first of several, into videos/, about every
    this number of environment steps; 0 never."""
    checkpoint_every: int | None = None
    """Save a checkpoint about every this number of environment steps of a seed; 0 only at the end.
    By default ten times in a run."""
    keep_checkpoints: int = 3
    """The newest checkpoints that are kept."""
    log: tuple[str, ...] = ()
    """Also log to tensorboard, wandb, trackio or mlflow, each an extra, or to a logger of your own,
    package.module:attribute."""
    resume: Path | None = None
    """Resume the run in this directory from its newest whole checkpoint, with its settings;
    --total-timesteps may be raised."""
    log_format: Literal[LOG_FORMATS] = "auto"
    """How progress is told: auto is live on a terminal and in a notebook; plain prints lines, json
    one JSON object in each."""
    quiet: bool = False
    """Print nothing but errors and warnings."""

    def __post_init__(self):
        names = (self.log,) if isinstance(self.log, str) else tuple(self.log)
        object.__setattr__(self, "log", names)

    def validate(self) -> "RunOptions":
        """Raises ValueError or TypeError if an option is out of its range or of another type."""
        check(self, log_interval=1, keep_checkpoints=1)
        check(self, eval_every=0, render_every=0, checkpoint_every=0, devices=1)
        if self.coordinator and self.render_every:
            raise ValueError(f"render_every = {self.render_every}: not with a coordinator")
        check_shared(self)
        if self.eval_every and not self.eval_episodes:
            raise ValueError("eval_episodes = 0: must be at least 1 with eval_every")
        if self.render_every and self.run_dir is None:
            raise ValueError(f"render_every = {self.render_every}: needs a run_dir for its videos")
        if self.stop_at_return is not None and not math.isfinite(self.stop_at_return):
            raise ValueError(f"stop_at_return = {self.stop_at_return}: must be finite")
        return self

    @property
    def seeds(self) -> list[int]:
        return list(range(self.seed, self.seed + self.num_seeds))

    def with_log_interval(self, config: Config) -> "RunOptions":
        """The options with their `log_interval` as a number."""
        interval = self.log_interval or default_log_interval(config)
        return dataclasses.replace(self, log_interval=interval)


def check_shared(options: Any) -> None:
    """`validate` for the options that runs and sweeps share."""
    check(options, seed=0, num_seeds=1, eval_episodes=0, eval_envs=1, eval_max_steps=1)
    check(options, num_processes=1)
    hosts.check(options.coordinator, options.num_processes, options.process_id)
    if options.ray_address is not None and options.engine != "ray":
        raise ValueError(f"ray_address = {options.ray_address!r}: needs engine = 'ray'")
    if options.eval_max_steps >= 2**31:
        raise ValueError(f"eval_max_steps = {options.eval_max_steps}: must be below 2**31")
    if options.seed + options.num_seeds > 2**32:
        raise ValueError(f"seed = {options.seed}: the last seed must be below 2**32")
