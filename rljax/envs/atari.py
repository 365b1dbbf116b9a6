"""Atari 2600 games of the Arcade Learning Environment (extra `atari`): "ALE/Pong-v5" and others.

The preprocessing is the usual one (Mnih et al. 2015, Nature; Machado et al. 2018, arXiv 1709.06009)
and is done in C++, by ale-py's vector environment. What gymnasium makes of the same ids, without
preprocessing, is "gymnasium/ALE/Pong-v5".
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np

from rljax.envs import render
from rljax.envs.interface import Step
from rljax.utils.checks import check, check_range
from rljax.utils.lookup import unknown

PREFIX = "ALE/"
FRAMES_PER_SECOND = 60
RENDER_MODES = (None, "rgb_array", "human")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What `Config.env_kwargs` can have, with ale-py's names."""

    frameskip: int = 4  # Frames of a step, in which the action is held.
    maxpool: bool = True  # Observe of each pixel the brighter one of a step's last two frames.
    grayscale: bool = True  # Observe brightness; else colours, three images for each frame.
    img_height: int = 84  # To which frames of 210 x 160 are resized, as is the width.
    img_width: int = 84
    stack_num: int = 4  # Steps that are observed at once; those before a reset are 0.
    noop_max: int = 30  # A reset waits for a random number of frames, fewer than this.
    use_fire_reset: bool = False  # A reset presses FIRE, where the game has it.
    repeat_action_probability: float = 0.25  # Of a frame's action in the next: sticky actions.
    full_action_space: bool = False  # All 18 actions; else those that the game knows.
    max_num_frames_per_episode: int = 108_000  # After which a game is truncated.
    reward_clipping: bool = True  # Learn from the signs of rewards; returns are of the score.
    episodic_life: bool = True  # To learning, a lost life is the end; to returns, the game's.

    def validate(self) -> None:
        """Raises a ValueError or TypeError if a setting is wrong, or contradicts another."""
        sizes = "frameskip", "img_height", "img_width", "stack_num", "max_num_frames_per_episode"
        check(self, noop_max=0, **dict.fromkeys(sizes, 1))
        allowed = "in [0, 1)", lambda x: (x >= 0) & (x < 1)
        check_range("repeat_action_probability", self.repeat_action_probability, *allowed)
        if self.maxpool and self.frameskip == 1:
            what = "there is one frame in a step (frameskip = 1)"
            raise ValueError(f"maxpool = True: {what}; set maxpool = False")


class Games:
    """Games in threads of C++, otherwise as `vectorized.SyncEnvs`. `lives` [B] are those left."""

    errors = ()

    def __init__(self, rom: str, settings: Preprocessing, number: int, threads: int):
        from ale_py.vector_env import AtariVectorEnv

        own = dataclasses.asdict(settings)
        self.reward_clipping, self.grayscale = own.pop("reward_clipping"), settings.grayscale
        # ale-py's `episodic_life` begins a new game with each life.
        how = dict(reward_clipping=False, episodic_life=False)
        how |= dict(life_loss_info=own.pop("episodic_life"), autoreset_mode="SameStep")
        self.games = AtariVectorEnv(rom, number, num_threads=threads, **how, **own)
        self.action_space = self.games.single_action_space
        shape = (settings.stack_num, settings.img_height, settings.img_width)
        shape = (shape[0] * (1 if self.grayscale else 3), *shape[1:])
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)

    def reset(self, seeds: Sequence[int] | None = None) -> tuple[np.ndarray, None]:
        """Begins new games; returns (observations [B, *obs_shape], no mask)."""
        obs, info = self.games.reset(seed=None if seeds is None else np.array(seeds, np.int64))
        self.before, self.lives = _frames_before(info), info["lives"]
        return self._images(obs), None

    def step(self, actions: np.ndarray) -> Step:
        """Takes actions [B]; a game that is over begins anew in the same step."""
        obs, score, terminated, truncated, info = self.games.step(actions.astype(np.int64))
        obs, before = self._images(obs), _frames_before(info)
        over, self.before, final_obs = before != self.before, before, obs
        if over.any():
            final_obs = obs.copy()
            final_obs[over] = self._images(info["final_obs"][over])  # of others it is arbitrary
        score = score.astype(np.float32)
        reward = np.sign(score) if self.reward_clipping else score
        self.lives = info["lives"]
        more = dict(score=score, over=over)
        return Step(obs, reward, terminated, truncated, final_obs, **more)

    def ask_to_close(self) -> None:
        """They close at once."""

    def close(self) -> None:
        """Closes the games."""
        self.games.close()

    def _images(self, obs):
        """Colours become images, those of a frame side by side."""
        if self.grayscale:
            return obs
        return np.moveaxis(obs, -1, 2).reshape(len(obs), *self.observation_space.shape)


def _frames_before(info):
    """[B] the frames of the games before, which tell one from the next."""
    return info["frame_number"] - info["episode_frame_number"]


class Atari(gymnasium.Env):
    """One game. It observes bytes [stack_num, img_height, img_width], the oldest frame first; in
    colour [3 * stack_num, ...]. `info["score"]` is what the game gives, `info["lives"]` are those
    left, and `info["over"]` tells whether it must be reset, which it need not where it is
    terminated."""

    metadata: ClassVar = {"render_modes": ["rgb_array"]}
    has_score = has_over = True

    def __init__(self, rom: str, settings: Preprocessing, render_mode: str | None = None):
        self.settings = settings
        self.games = Games(rom, settings, 1, threads=1)
        # The same game once more, in colours and as large as it is: with the same seeds and actions
        # it goes the same way.
        self.render_mode, self.colored, self.shown = render_mode, None, None
        if render_mode == "rgb_array":
            self.metadata = {**self.metadata, "render_fps": FRAMES_PER_SECOND / settings.frameskip}
            whole = dict(img_height=210, img_width=160, grayscale=False, stack_num=1)
            self.colored = Atari(rom, dataclasses.replace(settings, **whole))
        self.observation_space = self.games.observation_space
        self.action_space = self.games.action_space
        self.begun = None  # the first observation of the next game, which has begun by itself

    def reset(self, *, seed=None, options=None):
        begun, self.begun = self.begun, None
        if begun is None or seed is not None:
            (begun,), _ = self.games.reset(None if seed is None else [seed])
        if self.colored:
            self.shown, _ = self.colored.reset(seed=seed)
        return begun, {}

    def step(self, action):
        answer = self.games.step(np.array([action]))
        if self.colored:
            self.shown = self.colored.step(action)[0]
        one = Step(*(None if x is None else x[0] for x in answer))
        self.begun = one.obs if one.over else None
        info = {"score": one.score, "over": one.over, "lives": self.games.lives[0]}
        return one.final_obs, one.reward, one.terminated, one.truncated, info

    def render(self) -> np.ndarray | None:
        """The screen [210, 160, 3] in colours; None without a render_mode."""
        return None if self.shown is None else np.moveaxis(self.shown, 0, -1)


def factory(env: str, spec: Any) -> Callable[..., Atari]:
    """What makes the game of an id of `env_kwargs`, from its registration; its `together` makes
    several of them. Settings that are wrong are a ValueError or TypeError."""
    rom = spec.kwargs["game"]

    def build(render_mode: str | None = None, **kwargs: Any) -> gymnasium.Env:
        if render_mode not in RENDER_MODES:
            known = [mode for mode in RENDER_MODES if mode]
            raise ValueError(f"env = {env!r}: {unknown('render_mode', str(render_mode), known)}")
        render.check_display(env, render_mode)
        game = Atari(rom, _settings(env, kwargs), render_mode and "rgb_array")
        return gymnasium.wrappers.HumanRendering(game) if render_mode == "human" else game

    def together(kwargs: Mapping[str, Any], number: int, threads: int) -> Games:
        kwargs = {name: x for name, x in kwargs.items() if name != "render_mode"}
        return Games(rom, _settings(env, kwargs), number, min(number, threads))

    build.__registration__ = spec
    build.together = together
    return build


def _settings(env, kwargs):
    names = [field.name for field in dataclasses.fields(Preprocessing)]
    for name in kwargs:
        if name not in names:
            raise ValueError(unknown(f"setting of {env}", name, names))
    settings = Preprocessing(**kwargs)
    settings.validate()
    return settings


def check_wrappers(env: str, settings: Preprocessing, wrappers: Sequence[str], stack: int) -> None:
    """Raises a ValueError if wrappers, by name, or `Config.frame_stack` do again what the
    preprocessing does."""
    done = {"frame_stack": ("stack_num", 1), "sticky_actions": ("repeat_action_probability", 0.0)}
    asked = [wrapper.partition("=")[0] for wrapper in wrappers] + ["frame_stack"] * (stack > 1)
    for name in asked:
        own, without = done.get(name, (None, None))
        if own and getattr(settings, own) != without:
            what = f"{env} does so itself ({own} = {getattr(settings, own)})"
            raise ValueError(f"{name}: {what}; set {own}={without}")
