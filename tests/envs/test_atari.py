"""Atari's games, beside gymnasium's wrappers, and as they are stepped together."""

import gymnasium
import jax
import numpy as np
import pytest

import rljax
from rljax import envs, presets
from rljax.envs import atari, catalogue
from rljax.envs.vectorized import AsyncEnvs, SyncEnvs

ale_py = pytest.importorskip("ale_py")

PLAIN = dict(repeat_action_probability=0.0, noop_max=0)


def played(env, number=2, steps=200, actions=4, **settings):
    """(the kind of the opened environments, first observations, the steps)."""
    made = envs.make(env, num_envs=number, **settings)
    rng = np.random.default_rng(0)
    with made.open() as running:
        obs, _ = running.reset(range(5, 5 + number))
        taken = [running.step(rng.integers(0, actions, number)) for _ in range(steps)]
        return type(running._envs), obs, taken


def test_games_are_those_of_gymnasiums_wrappers():
    """Frames, their maximum, size and stack, scores, and ends of games."""
    pytest.importorskip("cv2")
    _, obs, taken = played("ALE/Breakout-v5", 1, 400, env_kwargs=PLAIN)
    raw = gymnasium.make("ALE/Breakout-v5", frameskip=1, repeat_action_probability=0.0)
    plain = gymnasium.wrappers.AtariPreprocessing(raw, noop_max=0)
    plain = gymnasium.wrappers.FrameStackObservation(plain, 4, padding_type="zero")
    expected, _ = plain.reset(seed=5)
    np.testing.assert_array_equal(obs[0], expected)
    rng, games = np.random.default_rng(0), 0
    for step in taken:
        expected, score, terminated, truncated, _ = plain.step(rng.integers(0, 4, 1)[0])
        assert (step.over[0], step.score[0]) == (terminated or truncated, score)
        np.testing.assert_array_equal(step.final_obs[0], expected)
        if terminated or truncated:
            expected, _ = plain.reset()
            games += 1
        np.testing.assert_array_equal(step.obs[0], expected)
    assert games == 1
    assert sum(step.score[0] for step in taken) > 0
    plain.close()


@pytest.mark.parametrize("kwargs", [{}, {"grayscale": False, "stack_num": 2, "img_height": 42}])
def test_however_games_are_stepped_they_are_the_same(kwargs):
    """In threads, one by one, and in processes; at random, and with frames in colour."""
    together, obs, taken = played("ALE/Breakout-v5", 3, env_kwargs=kwargs)
    assert together is atari.Games
    ways = {SyncEnvs: dict(wrappers=("time_limit=9999",))}
    ways[AsyncEnvs] = dict(vectorization="async", env_processes=2)
    for kind, settings in ways.items():
        other, first, steps = played("ALE/Breakout-v5", 3, env_kwargs=kwargs, **settings)
        assert other is kind
        np.testing.assert_array_equal(first, obs)
        jax.tree.map(np.testing.assert_array_equal, steps, taken)
    assert obs.dtype == np.uint8
    assert obs.shape[1:] == ((6, 42, 84) if kwargs else (4, 84, 84))
    assert len({step.obs.tobytes() for step in taken}) > 150
    assert any((step.obs[0] != step.obs[1]).any() for step in taken)


def test_a_lost_life_ends_an_episode_to_learning_alone():
    _, _, taken = played("ALE/Breakout-v5", 1, 400, env_kwargs=PLAIN)
    ends = np.array([(step.terminated[0], step.over[0]) for step in taken])
    assert ends.sum(axis=0).tolist() == [9, 1]
    assert ends[:, 0].nonzero()[0][4] == ends[:, 1].nonzero()[0][0]  # a game has five lives
    assert (ends[:, 0] >= ends[:, 1]).all()
    kwargs = PLAIN | {"episodic_life": False}
    _, _, whole = played("ALE/Breakout-v5", 1, 400, env_kwargs=kwargs)
    np.testing.assert_array_equal([step.terminated[0] for step in whole], ends[:, 1])
    for step, other in zip(taken, whole):
        np.testing.assert_array_equal(step.obs, other.obs)


def test_rewards_are_the_signs_of_scores():
    found = {}
    for clips in (True, False):
        kwargs = {"reward_clipping": clips, "noop_max": 0}
        _, _, taken = played("ALE/MsPacman-v5", 1, 100, 9, env_kwargs=kwargs)
        found[clips] = np.array([(step.reward[0], step.score[0]) for step in taken])
    np.testing.assert_array_equal(found[True][:, 1], found[False][:, 1])
    np.testing.assert_array_equal(found[False][:, 0], found[False][:, 1])
    np.testing.assert_array_equal(found[True][:, 0], np.sign(found[True][:, 1]))
    assert found[True][:, 1].max() >= 10


def test_games_are_truncated_after_their_frames():
    kwargs = {"max_num_frames_per_episode": 40}
    _, _, taken = played("ALE/Pong-v5", 1, 21, env_kwargs=kwargs)
    assert [step.truncated[0] for step in taken] == ([False] * 9 + [True]) * 2 + [False]
    assert [step.over[0] for step in taken] == [step.truncated[0] for step in taken]
    assert not any(step.terminated[0] for step in taken)


@pytest.mark.parametrize("game", ["ALE/Pong-v5", "ALE/Breakout-v5"])
def test_what_is_drawn_is_the_game_that_is_played(game):
    build, whole = catalogue.find(game), dict(img_height=210, img_width=160, maxpool=False)
    drawn, plain = build(render_mode="rgb_array", **whole), build(**whole)
    seen, actions = [env.reset(seed=3)[0] for env in (drawn, plain)], np.random.default_rng(0)
    ended = 0
    for _ in range(400):
        assert (seen[0] == seen[1]).all()
        grey = drawn.render() @ np.array([0.299, 0.587, 0.114])
        assert np.abs(grey - seen[0][-1]).max() < 1
        action = int(actions.integers(plain.action_space.n))
        (seen[0], *answer), (seen[1], *other) = drawn.step(action), plain.step(action)
        assert answer == other
        if answer[-1]["over"]:
            ended += 1
            seen = [env.reset()[0] for env in (drawn, plain)]
    assert plain.render() is None
    assert ended or "Pong" in game


def test_settings_reach_the_games(monkeypatch):
    seen, vector_env = [], ale_py.vector_env
    make = vector_env.AtariVectorEnv
    monkeypatch.setattr(
        vector_env, "AtariVectorEnv", lambda *args, **own: (seen.append(own), make(*args, **own))[1]
    )
    kwargs = dict(use_fire_reset=True, full_action_space=True, noop_max=7, stack_num=3)
    kwargs |= dict(repeat_action_probability=0.5, frameskip=2, maxpool=False)
    made = envs.make("ALE/Breakout-v5", env_kwargs=kwargs)
    assert made.spec.action_space.n == 18
    assert kwargs.items() <= seen[0].items()
    others = dict(reward_clipping=False, episodic_life=False, life_loss_info=True)
    assert others.items() <= seen[0].items()


@pytest.mark.parametrize(
    ("env", "settings", "error", "message"),
    [
        ("ALE/Pnog-v5", {}, ValueError, "unknown environment 'ALE/Pnog-v5': did you mean ALE/Pong"),
        (
            "ALE/Pong-v5",
            dict(env_kwargs={"frame_skip": 4}),
            ValueError,
            "unknown setting of ALE/Pong-v5 'frame_skip': did you mean frameskip",
        ),
        (
            "ALE/Pong-v5",
            dict(env_kwargs={"frameskip": 1}),
            ValueError,
            "maxpool = True: there is one frame in a step",
        ),
        ("ALE/Pong-v5", dict(env_kwargs={"stack_num": 0}), ValueError, "stack_num = 0: must be at"),
        ("ALE/Pong-v5", dict(env_kwargs={"maxpool": 1}), TypeError, "maxpool = 1: must be True or"),
        (
            "ALE/Pong-v5",
            dict(env_kwargs={"repeat_action_probability": 1.5}),
            ValueError,
            r"repeat_action_probability = 1.5: must be in \[0, 1\)",
        ),
        ("ALE/Pong-v5", dict(frame_stack=4), ValueError, "frame_stack: ALE/Pong-v5 does so itself"),
        (
            "ALE/Pong-v5",
            dict(wrappers=("sticky_actions=0.25",)),
            ValueError,
            r"sticky_actions: .* \(repeat_action_probability = 0.25\); set repeat_action_prob",
        ),
    ],
)
def test_bad_input(env, settings, error, message):
    with pytest.raises(error, match=message) as caught:
        envs.make(env, **settings)
    assert "\n" not in str(caught.value)


def test_gymnasiums_own_environment_has_no_preprocessing():
    assert envs.make("gymnasium/ALE/Pong-v5").spec.obs_shape == (210, 160, 3)


def test_one_preset_serves_all_games():
    for algorithm, network in (("a2c", "nature"), ("a3c", "a3c")):
        config = presets.preset(algorithm, "ALE/Asterix-v5").validate()
        assert (config.env, config.network) == ("ALE/Asterix-v5", network)
    with pytest.raises(ValueError, match="unknown a2c preset 'ALE/Pong-v5'"):
        presets.preset("a2c", "gymnasium/ALE/Pong-v5")


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["a2c", "a3c"])
def test_agents_train_on_games(algorithm, tmp_path):
    """A run is stopped by its length and resumed; its games are cut, and their scores logged."""
    own = dict(num_envs=4, env_kwargs={"max_num_frames_per_episode": 80})
    if algorithm == "a3c":
        own |= dict(num_envs=1, num_workers=2, lockstep=True)
    run = rljax.train(
        algorithm,
        env="ALE/Pong-v5",
        network="a3c",
        total_timesteps=200,
        num_seeds=1,
        eval_episodes=2,
        run_dir=tmp_path / "run",
        quiet=True,
        **own,
    )
    assert run.status == "completed"
    assert run.metrics["episodic_length"].dropna().eq(20).all()
    assert run.metrics["episodic_return"].dropna().between(-1, 0).all()
    assert run.summary["final_return"]["episodes"] == 2
    again = rljax.resume(run.run_dir, total_timesteps=400, quiet=True)
    assert again.env_steps == [400]
    assert np.isfinite(again.metrics["policy_loss"]).all()
    action = again.policy(0, greedy=True)(np.zeros((4, 84, 84), np.uint8))
    assert 0 <= action < 6
