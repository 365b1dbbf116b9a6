"""The options of simulated A3C. Needs no JAX."""

import dataclasses
from functools import partial
from typing import ClassVar, Literal

from rljax.a3c import delays
from rljax.a3c.timing import DURATIONS
from rljax.config import Config, of_a_worker
from rljax.utils.checks import ABOVE_0, AT_LEAST_0, SHARE, check, check_range
from rljax.utils.traced import parsed

OF_GRADIENTS = ("staleness_scaling", "dc_asgd_c", "dc_asgd_a")
OF_DATA = ("importance", "vtrace", "ppo_clip", "decoupled", "ess_scaling")
CORRECTIONS = ("none", *OF_GRADIENTS, *OF_DATA)
_RANGES = dict(compensation=AT_LEAST_0, compensation_decay=SHARE, clip_range=ABOVE_0)


@dataclasses.dataclass(frozen=True)
class SimulationConfig:
    """Simulated workers, how long what they do takes, and what is done about staleness.

    Durations are such as constant:1, exponential:0.5, lognormal:1:0.5 (mean, sigma), pareto:1:1.5
    (mean, alpha), slow:1:10 (one worker takes 10 times as long) or measured:RUN_DIR, of a run of
    A3C with --log-timing. Their unit is arbitrary, and the same for all.
    """

    num_workers: int = 4  # Simulated workers.
    envs_per_worker: int = 1  # Environments that step together in each worker.
    work: str = "exponential:1"
    """How long a worker acts and computes, from a pull of the parameters to the push."""
    transit: str = "constant:0"  # How long a gradient is on its way to the holder.
    service: str = "constant:0"  # How long the holder takes for each gradient.
    pause: str = "constant:0"  # From a push to the worker's next pull.
    in_flight: int = 1
    """Gradients of a worker that the holder may not have begun with yet; with more it waits."""
    staleness: str | None = None
    """Instead of the durations: the staleness itself, as constant:K, uniform:LOW:HIGH or
    geometric:MEAN, of workers in turn."""
    stale: Literal["gradients", "data"] = "gradients"
    """What is stale: gradients, computed with the parameters acted with (A3C), or the data alone,
    whose gradients are computed with the newest parameters (IMPALA, and RL of language models)."""
    correction: Literal[CORRECTIONS] = "none"
    """What is done about it (see rljax/a3c/corrections.py). For gradients: staleness_scaling,
    dc_asgd_c, dc_asgd_a; for data: importance, vtrace, ppo_clip, decoupled, ess_scaling."""
    max_staleness: int | None = None
    """Reject gradients whose parameters are more versions old than this; by default none."""
    compensation: float = 0.04  # Lambda of dc_asgd_c, and lambda_0 of dc_asgd_a.
    compensation_decay: float = 0.95  # Decay of dc_asgd_a's mean of squared gradients.
    clip_range: float = 0.2  # Epsilon of ppo_clip and decoupled.
    data_epochs: int = 1
    """Gradient steps on the same data, where data are stale; decoupled is importance with one."""
    diagnostics: bool = True
    """Also log the cosine of stale and fresh gradients, and the effective sample size of the
    ratios of the two policies; this computes another gradient."""

    PARSERS: ClassVar = {
        **{name: partial(delays.duration, name=name) for name in DURATIONS},
        "staleness": delays.staleness,
    }

    def __str__(self):
        how = f"staleness {self.staleness}" if self.staleness else f"work {self.work}"
        return f"{self.num_workers:,} simulated worker{'s' * (self.num_workers > 1)} · {how}"

    def validate(self) -> "SimulationConfig":
        """Checks every option, as `Config.validate` does."""
        texts = (*DURATIONS, "staleness")
        least = dict(max_staleness=0, data_epochs=1, in_flight=1)
        check(self, *texts, num_workers=1, envs_per_worker=1, **least)
        for name, parse in self.PARSERS.items():
            parse(getattr(self, name))
        for name, allowed in _RANGES.items():
            check_range(name, getattr(self, name), *allowed)
        fitting = OF_GRADIENTS if self.stale == "gradients" else OF_DATA
        if self.correction not in ("none", *fitting):
            what = f"does not fit stale = {self.stale!r}: known are none, {', '.join(fitting)}"
            raise ValueError(f"correction = {self.correction!r}: {what}")
        if self.data_epochs > 1 and self.stale != "data":
            what = f"must be 1 with stale = {self.stale!r}"
            raise ValueError(f"data_epochs = {self.data_epochs}: {what}")
        return self

    def settle(self, config: Config) -> Config:
        """The config of a run with these workers: `num_envs` are those of each worker.

        Raises:
            ValueError, TypeError: either is wrong, or they do not fit.
        """
        self.validate()
        return of_a_worker(config, self.envs_per_worker, "simulated A3C").validate()

    @property
    def versions(self) -> int:
        """Versions of the parameters that are kept: the newest, and as many as can be in flight, of
        which each is kept once."""
        kind = parsed(self, "staleness").kind
        return 1 + (self.num_workers * (self.in_flight + 1) if kind is None else kind[1])
