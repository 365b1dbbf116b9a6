"""DQN's tuned settings for `presets`: fields of `Config` and of `DQNConfig`."""

DQN_BASE = dict(
    heads="q",
    num_envs=8,
    num_steps=2,
    optimizer="adam",
    optimizer_eps=1e-8,
    learning_rate=1e-3,
    anneal_lr=False,
    max_grad_norm=10.0,
    activation="relu",
    normalize_rewards=True,
)
"""As SB3's: Adam, ReLUs, norms clipped at 10; an update has 16 steps, and a gradient step for four.

But for the scale of rewards: Huber's loss weighs all errors above 1 alike. With rewards of 1 a step
the few transitions that end an episode are then outvoted by the many that do not, and in CartPole
Q grew beyond all bounds at learning rates of 1e-3 and below."""

DQN_PRESETS: dict[tuple[str, str], dict] = {}
