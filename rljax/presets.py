"""Tuned settings, by algorithm and environment. Like `config`, it needs no JAX."""

import fnmatch
import re

from rljax.config import Config
from rljax.dqn_presets import DQN_BASE, DQN_PRESETS
from rljax.utils.lookup import unknown

_NORMALIZED = dict(total_timesteps=1_000_000, normalize_observations=True, normalize_rewards=True)
_LANDER = dict(_NORMALIZED, num_steps=8, gamma=0.999, gae_lambda=0.98, hidden_sizes=(128, 128))
_DENSE = dict(hidden_sizes=(128,), activation="relu", shared_torso=True)
_MUJOCO = dict(_NORMALIZED, num_steps=8, gae_lambda=0.9, learning_rate=1e-3, log_std_init=-1.0)
_ATARI = dict(total_timesteps=10_000_000, shared_torso=True, ent_coef=0.01, vf_coef=0.25)
_ATARI |= dict(optimizer="rmsprop_torch")
_MINATAR = dict(_DENSE, total_timesteps=2_500_000, num_steps=8)
_STICKY = dict(total_timesteps=5_000_000)
_MEMORY = dict(optimizer="adam", hidden_sizes=(64,), learning_rate=3e-3)
_NO_VELOCITIES = dict(
    _NORMALIZED | _MEMORY,
    wrappers=("mask_velocity",),
    core="gru",
    forget_bias=0.0,
    core_inputs=("last_action",),
)
_CHAIN = dict(_MEMORY, core="lstm", forget_bias=3.0, shared_torso=True, num_envs=8, gae_lambda=1.0)

PRESETS: dict[tuple[str, str], dict] = {
    # A2C's use TensorFlow's RMSProp, because its statistics start at 1: the first steps are small,
    # so that learning rates ten times the usual are safe. With the other flavours, or Adam, these
    # would saturate the critic's tanh units for good. Those that use Adam have a core or ReLUs.
    # The comment above each preset gives the search that found it (points, seeds, axes) and what is
    # unusual. Searches are of experiments/sweep.py with --preset none, --sampling random, and the
    # settings of the preset that they do not vary.
    #
    # 24 points, 8 seeds: learning_rate=log:5e-3:4e-2 gae_lambda=0.9,0.95,1 ent_coef=0,0.003
    ("a2c", "CartPole-v1"): dict(
        total_timesteps=300_000, num_steps=8, gae_lambda=0.95, learning_rate=1.5e-2
    ),
    # 12 points, 8 seeds, --sampling-seed 1: learning_rate=log:2.5e-2:1e-1 ent_coef=0,0.003
    # gae_lambda=0.9,0.95
    ("a2c", "Acrobot-v1"): dict(num_steps=16, gae_lambda=0.9, learning_rate=3.8e-2),
    # 32 points, 3 seeds: learning_rate=log:1e-3:3e-2 gae_lambda=0.8,0.9,0.95 gamma=0.9,0.95
    # log_std_init=-1,0 ent_coef=0,0.003
    # A short horizon: what an action does shows within a second, and rewards are never sparse. The
    # entropy bonus keeps the standard deviation from collapsing before the swing-up is found.
    ("a2c", "Pendulum-v1"): dict(
        _NORMALIZED, num_steps=16, gamma=0.95, gae_lambda=0.8, ent_coef=0.003, learning_rate=2e-2
    ),
    # 24 points, 3 seeds: learning_rate=log:1e-3:5e-2 gae_lambda=0.9,0.95,1 gamma=0.99,0.995
    # ent_coef=0,0.01,0.03
    # Until the flag is reached once, every episode returns -200: standardised observations make the
    # fresh policy swing with the velocity often enough; a long horizon carries the reward back.
    ("a2c", "MountainCar-v0"): dict(
        _NORMALIZED, num_steps=16, gamma=0.995, ent_coef=0.01, learning_rate=1.5e-2
    ),
    # 24 points, 3 seeds: learning_rate=log:1e-3:3e-2 gae_lambda=0.9,0.95,1 gamma=0.99,0.999
    # log_std_init=0,1,2 ent_coef=0,0.01,0.05
    # As above, and long rollouts: doing nothing costs nothing, so the flag's reward must be seen
    # from far away before the price of pushing has taught the policy to stand still.
    ("a2c", "MountainCarContinuous-v0"): dict(
        _NORMALIZED, num_steps=64, gamma=0.999, learning_rate=2.5e-3
    ),
    # 16 points, 4 seeds: learning_rate=log:1e-3:3e-2 gae_lambda=0.9,0.95,1 ent_coef=0,0.01
    ("a2c", "Catch-bsuite"): dict(total_timesteps=200_000, num_steps=8, learning_rate=1e-2),
    # 6 points, 1 seed, --total-timesteps 1500000: learning_rate=log:5e-3:2e-2 ent_coef=0.01,0.03
    # gae_lambda=0.6,0.8,0.95
    # The network of MinAtar's authors; half of their five million steps is enough for three of the
    # games. Small batches: with eight times as large ones, though with dense layers alone, Asterix
    # had not begun to be learnt after two million steps.
    # Breakout anew, 18 points by hand, 4 seeds, 2,000,000 steps, most not annealed: learning_rate
    # 1.2e-2 to 3e-2, ent_coef 0.003 to 0.1, gae_lambda 0.6 to 0.9, gamma, Adam, larger batches,
    # rewards normalised. The ball comes to repeat a path without bricks, at a return of 14 and then
    # of 24: without a large entropy bonus and a large rate, seeds stay there.
    ("a2c", "Breakout-MinAtar"): dict(
        _MINATAR, total_timesteps=5_000_000, gae_lambda=0.6, ent_coef=0.03, learning_rate=2e-2
    ),
    ("a2c", "Asterix-MinAtar"): dict(
        _MINATAR, gae_lambda=0.8, ent_coef=0.03, learning_rate=1.15e-2
    ),
    ("a2c", "SpaceInvaders-MinAtar"): dict(
        _MINATAR, gae_lambda=0.95, ent_coef=0.03, learning_rate=1.05e-2
    ),
    # 2 points, 1 seed, --sampling-seed 2: learning_rate=log:5e-3:1e-2
    # Rewards are rare until the road is crossed on purpose; unscaled, one seed in two was slow.
    ("a2c", "Freeway-MinAtar"): dict(
        _MINATAR, gae_lambda=0.95, ent_coef=0.01, learning_rate=6e-3, normalize_rewards=True
    ),
    # 17 points by hand, 2 seeds, 1,000,000 to 3,000,000 steps: optimizer=rmsprop_tf,adam
    # learning_rate=1e-3,2e-3 (RMSProp 5e-3 to 2e-2) ent_coef=0.001 to 0.03 gamma=0.97 to 0.995
    # gae_lambda=0.6 to 0.95, rewards normalised or not, rollouts of 32 steps.
    # Rewards are rare at first: normalised they are learnt from three times as fast. A place to
    # start from: no point was above 8, the return of a boat whose oxygen runs out once.
    ("a2c", "pgx/minatar-seaquest"): dict(
        _MINATAR | _STICKY,
        gae_lambda=0.8,
        ent_coef=0.02,
        optimizer="adam",
        learning_rate=1e-3,
        normalize_rewards=True,
    ),
    # 13 points by hand, 2 seeds, 400,000 to 1,000,000 steps: optimizer=rmsprop_tf,adam
    # learning_rate=1e-3,2e-3 (RMSProp 3e-3 to 2e-2) ent_coef=0,0.001,0.003,0.01,0.03
    # gamma=0.95,0.98,0.99 gae_lambda=0.9,0.95, rewards normalised or not, larger batches.
    # At first a fruit is found once in 240 steps: unscaled, or with an ent_coef of 0.01, nothing
    # was learnt. The mask keeps the snake off walls and itself: exploration enough.
    ("a2c", "jumanji/Snake-v1"): dict(
        _DENSE,
        total_timesteps=2_000_000,
        num_steps=8,
        gamma=0.95,
        gae_lambda=0.95,
        optimizer="adam",
        learning_rate=1e-3,
        normalize_rewards=True,
    ),
    # This has not been searched for and is a place to start from.
    ("a2c", "craftax/Craftax-Classic-Symbolic-v1"): dict(
        total_timesteps=1_000_000,
        num_envs=64,
        num_steps=16,
        gae_lambda=0.9,
        ent_coef=0.01,
        learning_rate=3e-3,
        hidden_sizes=(256, 256),
    ),
    # 2 points, 1 seed, 1,500,000 steps: learning_rate=1e-3,3e-3 (2,000 and 1,070 in training)
    ("a2c", "brax/ant"): dict(
        _NORMALIZED | dict(total_timesteps=1_500_000, num_envs=64, num_steps=8, gae_lambda=0.9),
        learning_rate=1e-3,
        log_std_init=-1.0,
    ),
    # Some twenty random points of steps per rollout, learning rate, gamma, lambda, ent_coef,
    # optimiser, network and normalisation, one seed and about 500,000 steps each; then twelve
    # points around the best, one or two seeds and a million steps each. A long horizon mattered, or
    # the lander hovers until time is up; and a large entropy bonus, with a greedy evaluation.
    ("a2c", "LunarLander-v3"): dict(_LANDER, ent_coef=0.02, learning_rate=5.5e-3),
    # Eleven points around LunarLander's, one seed each and a million steps: with rates as high as
    # there, and with no entropy bonus, it never landed. This one reached 100, and is no more than a
    # place to start from.
    ("a2c", "LunarLanderContinuous-v3"): dict(_LANDER, ent_coef=0.003, learning_rate=2.5e-3),
    # By hand, around the RL zoo's settings (rollouts of 8 steps, lambda 0.9, a small initial
    # standard deviation). Of four runs of up to five million steps, at 1.2e-3 and 3e-3, three had
    # reached 220 by two million, and three forgot it later. Annealed to 0 at three million, seven
    # of ten seeds end above 245, one has forgotten it, and two learn late or never.
    ("a2c", "BipedalWalker-v3"): _MUJOCO | dict(total_timesteps=3_000_000, learning_rate=1.5e-3),
    # MuJoCo's, around the RL zoo's settings (rollouts of 8 steps, lambda 0.9, rate 1e-3).
    #
    # 16 points by hand, of one to three seeds, 500,000 or 1,000,000 steps: num_envs 4, 8, 16,
    # num_steps 8, 16, 32, learning_rate 7e-4 to 3e-3, gamma 0.98, 0.99, gae_lambda 0.9, 0.95,
    # log_std_init -1, -2, max_grad_norm 0.5, 1, normalize_advantage. Four environments have four
    # times the updates; a smaller initial standard deviation learnt nothing. Seeds differ much, of
    # this one 2,600, 2,840 and 3,620.
    ("a2c", "HalfCheetah-v5"): dict(
        _MUJOCO, num_envs=4, num_steps=16, gae_lambda=0.95, learning_rate=1.5e-3
    ),
    # 6 points by hand, one seed: num_envs 4, 8, 16, learning_rate 1e-3, 3e-3, log_std_init -1, -2,
    # gamma 0.99, 0.999. Most stay where it stands for the whole episode (1,000).
    ("a2c", "Hopper-v5"): dict(_MUJOCO, num_envs=8),
    # 9 points by hand, of one or two seeds: as above, gae_lambda 0.95, ent_coef 0, 0.002. Without
    # an entropy bonus most settle within 400,000 steps for standing (1,000) or falling (300).
    ("a2c", "Walker2d-v5"): dict(_MUJOCO, num_envs=8, ent_coef=0.002),
    # 5 points by hand, one seed, 500,000 or 1,000,000 steps: none swam (43 at best).
    ("a2c", "Swimmer-v5"): dict(_MUJOCO, num_envs=8, num_steps=32, gae_lambda=0.95, gamma=0.999),
    # One point, one seed.
    ("a2c", "Ant-v5"): dict(_MUJOCO, num_envs=8),
    # Those that need a memory: velocities take one of few steps, mazes and chains one of many, for
    # which the forget gate is open at first.
    #
    # 6 points, 3 seeds, 250,000 steps: learning_rate=3e-3,6e-3 gae_lambda=0.95,0.98,1
    # gamma=0.99,0.995
    # The change of a small angle tells the velocity: where observations were not standardised, of
    # 12 points none had all of 5 seeds at 500.
    ("a2c", "CartPoleNoVel-v1"): dict(
        _NO_VELOCITIES,
        env="CartPole-v1",
        total_timesteps=300_000,
        num_steps=32,
        gamma=0.995,
        gae_lambda=0.98,
    ),
    # 8 points by hand, 2 seeds, 500,000 to 1,000,000 steps: num_envs 8 or 16, num_steps 16 or 32,
    # gamma 0.9 or 0.95, gae_lambda 0.8 or 0.95, ent_coef 0 or 0.003, learning_rate 1e-3 to 6e-3
    # A shorter horizon than with velocities: at 0.95 the swing-up was hardly found.
    ("a2c", "PendulumNoVel-v1"): dict(
        _NO_VELOCITIES,
        env="Pendulum-v1",
        num_envs=8,
        num_steps=16,
        gamma=0.9,
        gae_lambda=0.95,
        ent_coef=0.003,
    ),
    # 3 points by hand, 2 seeds, 300,000 steps: learning_rate=1e-3,3e-3 log_std_init=0,1
    # As with velocities; at 1e-3 neither seed found the flag. A place to start from: of five fresh
    # seeds two reached 92 and above, and three had learnt to stand still.
    ("a2c", "MountainCarContinuousNoVel-v0"): dict(
        _NO_VELOCITIES,
        env="MountainCarContinuous-v0",
        num_steps=64,
        gamma=0.999,
    ),
    # By hand, some fifteen points of num_steps, gamma, ent_coef and forget_bias, 3 to 6 seeds, at
    # corridors of 20 and 100. One core for policy and value, and rollouts longer than an episode,
    # through which the turn's reward reaches the hint. Standardised, the rare hint is a large
    # number; a bias of 5 keeps half of it over 100 steps, and one of 3 nothing.
    ("a2c", "TMaze"): dict(
        _CHAIN,
        total_timesteps=2_000_000,
        num_steps=256,
        gamma=1.0,
        ent_coef=0.003,
        forget_bias=5.0,
        normalize_observations=True,
    ),
    # 2 points, 3 seeds, at a length of 40: ent_coef=0,0.01
    # As the maze; with the entropy bonus one seed in three had not learnt it.
    ("a2c", "MemoryChain-bsuite"): dict(_CHAIN, total_timesteps=400_000, num_steps=128, gamma=1.0),
    # 3 points by hand, one seed, on Pong: the RL zoo's settings (rmsprop_tf, 7e-4) and four times
    # their rate learnt nothing in 500,000 and 700,000 steps; with PyTorch's epsilon outside of the
    # root, -19.4 at 900,000. The gradients are far smaller than the root of the epsilon.
    ("a2c", "ALE/*"): dict(_ATARI, network="nature"),
    # A3C's were found in one vmapped program, in which four workers take turns and act with
    # parameters eight versions old, as four processes on two cores do: random points, t_max 5.
    #
    # 4 learning rates in [1.1e-3, 3e-3], 14 seeds each, 200,000 steps: from 1.4e-3 on all of them
    # reached 500. With RMSProp's statistics from 0, as in the paper, the first steps are ten times
    # as large, and one seed in ten saturated its tanh units for good.
    ("a3c", "CartPole-v1"): dict(
        total_timesteps=300_000, optimizer="rmsprop_tf", gae_lambda=0.95, learning_rate=2.2e-3
    ),
    # 14 points: learning rate in [5e-4, 1e-2], ent_coef 0.003 or 0.01, lambda 0.9 to 1; 2 to 4
    # seeds each, 600,000 steps. All of them learnt; the curves are flat from 150,000 steps on.
    ("a3c", "Acrobot-v1"): dict(total_timesteps=600_000, learning_rate=1.8e-3),
    # 15 points: learning rate in [3e-4, 1e-2], gamma 0.9 or 0.95, ent_coef 0 or 0.003, lambda 0.9
    # or 1, log_std_init -0.5 or 0; 2 to 3 seeds each. As in A2C's preset, the horizon is short.
    ("a3c", "Pendulum-v1"): dict(_NORMALIZED, gamma=0.95, ent_coef=0.003, learning_rate=5e-3),
    # Not searched for: the paper's network, and what A2C was found to need, which is clipped means.
    ("a3c", "ALE/*"): dict(
        _ATARI,
        network="a3c",
        optimizer_eps=1e-5,
        loss_reduction="mean",
        max_grad_norm=0.5,
    ),
}

# With sticky actions (pgx) as without them (gymnax), and longer; not searched for anew.
PRESETS |= {
    ("a2c", f"pgx/minatar-{game}"): PRESETS["a2c", f"{name}-MinAtar"] | _STICKY
    for game, name in (
        *(("asterix", "Asterix"), ("breakout", "Breakout")),
        *(("freeway", "Freeway"), ("space_invaders", "SpaceInvaders")),
    )
}
PRESETS |= {("a3c_simulated", env): x for (algo, env), x in PRESETS.items() if algo == "a3c"}
PRESETS |= DQN_PRESETS

BASES: dict[str, dict] = {
    # Mnih et al. 2016 (arXiv 1602.01783, section 5.1) and its authors' published answers:
    # t_max 5, sums over it, value gradient x 0.5, norm clipped at 40. One environment a worker.
    "a3c": dict(num_envs=1, ent_coef=0.01, loss_reduction="sum", max_grad_norm=40.0)
    | dict(optimizer="rmsprop_a3c", optimizer_eps=0.1),
    "dqn": DQN_BASE,
}
BASES["a3c_simulated"] = BASES["a3c"]
"""What each algorithm's settings start from; a preset replaces some of them."""


def base(algorithm: str) -> Config:
    """An algorithm's settings where nothing is known of the environment."""
    return Config(**BASES.get(algorithm, {}))


def preset(algorithm: str, name: str) -> Config:
    """The tuned settings for an algorithm on an environment, or on a variant of one, such as
    "CartPoleNoVel-v1" (CartPole-v1 without velocities), which sets its environment and wrappers.

    Args:
        name: the environment's id, such as "CartPole-v1" or "gymnasium/CartPole-v1", or a
            variant's: one preset serves gymnax's and gymnasium's environments of a name, and that
            of "ALE/*" all of Atari's.

    Raises:
        ValueError: there is no such preset; the message offers the nearest names.
    """
    settings, names = found(algorithm, name), Config.__dataclass_fields__
    return Config(**{name: x for name, x in settings.items() if name in names})


def found(algorithm: str, name: str) -> dict:
    """The settings of `preset`, and the algorithm's own options; raises as that does."""
    prefix, bare = re.fullmatch("((?:gymnax/|gymnasium/)?)(.*)", name, re.DOTALL).groups()
    names = [env for algo, env in PRESETS if algo == algorithm]
    fits = [env for env in names if env == bare or fnmatch.fnmatchcase(name, env)]
    if not fits:
        raise ValueError(unknown(f"{algorithm} preset", bare, names))
    settings = {"env": bare} | BASES.get(algorithm, {}) | PRESETS[algorithm, fits[0]]
    return settings | {"env": prefix + settings["env"]}
