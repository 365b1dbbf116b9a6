"""The options of DQN beside `Config`. Needs no JAX."""

import dataclasses

from rljax.config import Config
from rljax.utils.checks import SHARE, check, check_range, shown

_UNUSED = ("loss", "core", "gae_lambda", "ent_coef", "vf_coef", "normalize_advantage")
_UNUSED += ("loss_reduction",)
"""Settings of the actor-critic's loss, and what acting does not replay."""


@dataclasses.dataclass(frozen=True)
class DQNConfig:
    """The replay buffer, the gradient steps from it, and exploration. An update of DQN is one
    rollout of `num_envs` * `num_steps` environment steps, then `gradient_steps` gradient steps."""

    buffer_size: int = 50_000
    """Transitions that the replay buffer holds. Each seed and each checkpoint has a buffer; in
    bytes: buffer_size * (2 * bytes of an observation + 12), which summary.json tells."""
    replay_batch_size: int = 64  # Transitions of a gradient step.
    learning_starts: int = 1_000
    """Environment steps with random actions before the first gradient step."""
    gradient_steps: int = 4  # After each rollout.
    target_interval: int = 1_000
    """Environment steps between two copies of the parameters to the target network, in whole
    updates: at least one."""
    exploration_fraction: float = 0.1
    """Share of the run over which epsilon, the probability of a random action, falls from 1 to
    exploration_final, in a straight line."""
    exploration_final: float = 0.05  # Epsilon from then on; evaluations have none.

    def __str__(self):
        return f"buffer of {self.buffer_size:,}"

    def validate(self) -> "DQNConfig":
        """Checks every option, as `Config.validate` does."""
        counts = dict.fromkeys(("buffer_size", "replay_batch_size", "gradient_steps"), 1)
        check(self, **counts, learning_starts=0, target_interval=1)
        share = ("above 0 and at most 1", lambda x: (x > 0) & (x <= 1))
        check_range("exploration_fraction", self.exploration_fraction, *share)
        check_range("exploration_final", self.exploration_final, *SHARE)
        for name in ("buffer_size", "replay_batch_size", "gradient_steps"):
            if (value := getattr(self, name)) >= 2**31:
                raise ValueError(f"{name} = {shown(value)}: must be below 2**31")
        if self.replay_batch_size > self.buffer_size:
            what = f"must not be more than buffer_size = {self.buffer_size}"
            raise ValueError(f"replay_batch_size = {self.replay_batch_size}: {what}")
        return self

    def settle(self, config: Config) -> Config:
        """The config of a run with these options: its heads are Q values.

        Raises:
            ValueError, TypeError: either is wrong, or they do not fit.
        """
        self.validate()
        usual = Config()
        for name in _UNUSED:
            if (value := getattr(config, name)) != getattr(usual, name):
                what = f"DQN has none; leave it at {getattr(usual, name)!r}"
                raise ValueError(f"{name} = {shown(value)}: {what}")
        config = dataclasses.replace(config, heads="q").validate()
        if config.batch_size > self.buffer_size:
            what = f"a rollout, num_envs * num_steps = {config.batch_size}, must fit"
            raise ValueError(f"buffer_size = {self.buffer_size}: {what}")
        if (sample := self.gradient_steps * self.replay_batch_size) > self.buffer_size:
            what = f"an update's sample, gradient_steps * replay_batch_size = {sample}, must fit"
            raise ValueError(f"buffer_size = {self.buffer_size}: {what}")
        if self.learning_starts >= config.total_timesteps:
            what = f"must be below total_timesteps = {config.total_timesteps}"
            raise ValueError(f"learning_starts = {self.learning_starts}: {what}")
        return config
