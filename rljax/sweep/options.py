"""Options of sweeps and searches: they change what a trial learns by rounding at most. Needs no
JAX."""

import dataclasses
from pathlib import Path
from typing import Literal

from rljax.algorithms import find
from rljax.config import MAX_EPISODE_STEPS
from rljax.runs.options import DEVICES, ENGINES, EVAL_MODES, LOG_FORMATS, check_shared
from rljax.utils.checks import check


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """Options of a sweep, or of a search: they change what a trial learns by rounding at most."""

    algorithm: str = "a2c"
    """a2c, a3c, a3c_simulated or dqn. A3C's trials are trained in processes, as are those in
    environments that Python steps."""
    preset: str | None = None
    """Settings to start from: an environment id, or 'none'. By default those of --env."""
    seed: int = 0
    """The first seed; every point has the same ones."""
    num_seeds: int = 8
    """Seeds of each point: --seed and the following ones."""
    run_dir: Path | None = None
    """Where it is written. By default of the scripts runs/{env}__sweep-{algorithm}__{seed}__{time}
    or, of a search, ...__search-...; from Python nothing is written by default."""
    eval_episodes: int = 20
    """Full episodes of each trial after training; 0 takes the last tenth of training instead."""
    eval_mode: Literal[EVAL_MODES] = "greedy"
    """Whether they take the policy's mode or sample from it."""
    eval_envs: int | None = None
    """Environments that Python steps, which a trial's evaluation opens at once; by default
    --num-envs, at most 16."""
    eval_max_steps: int = MAX_EPISODE_STEPS
    """An evaluation's episode that has not ended after this number of steps is cut."""
    max_parallel: int | None = None
    """Trials at once, or processes; by default what is fastest and memory holds."""
    device: Literal[DEVICES] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""
    engine: Literal[ENGINES] = "local"
    """Where a sweep's trials are trained: in this machine, or as tasks of a Ray cluster (an extra).
    A search's are in this machine."""
    ray_address: str | None = None
    """host:port of the Ray cluster, or auto, which is the one that runs on this machine; by default
    that one or, if there is none, a new one for this sweep."""
    coordinator: str | None = None
    """Of several processes that train the trials of a sweep as one: HOST:PORT of process 0, which
    alone writes; or auto, as Slurm and Open MPI tell."""
    num_processes: int | None = None
    """How many they are, with --coordinator HOST:PORT."""
    process_id: int | None = None
    """Which of them this is, from 0 on."""
    resume: Path | None = None
    """Resume what is in this directory: trials that are finished stay as they are."""
    log_format: Literal[LOG_FORMATS] = "auto"
    """How progress is told: auto is live on a terminal and in a notebook; plain prints lines, json
    one JSON object in each."""
    quiet: bool = False
    """Print nothing but errors and warnings."""

    def validate(self) -> "SweepOptions":
        """Raises ValueError or TypeError if an option is out of its range or of another type."""
        find(self.algorithm)
        check(self, max_parallel=1)
        check_shared(self)
        if self.coordinator and self.engine != "local":
            raise ValueError(f"engine = {self.engine!r}: not with a coordinator")
        return self

    @property
    def seeds(self) -> list[int]:
        return list(range(self.seed, self.seed + self.num_seeds))

    @property
    def greedy(self) -> bool:
        return self.eval_mode == "greedy"
