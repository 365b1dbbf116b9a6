"""Small runs of A3C, as tests train them."""

from rljax.config import Config

CONFIG = Config(
    env="probes:RewardByAction",
    total_timesteps=2000,
    num_envs=1,
    num_steps=4,
    hidden_sizes=(8,),
    optimizer="rmsprop_a3c",
    loss_reduction="sum",
    optimizer_eps=0.1,
    learning_rate=0.01,
)
SMALL = dict(
    preset="none",
    total_timesteps=2000,
    num_steps=4,
    hidden_sizes=(8,),
    learning_rate=0.01,
    num_workers=2,
    eval_episodes=4,
    quiet=True,
)
