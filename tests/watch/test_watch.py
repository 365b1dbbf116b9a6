"""Agents in motion: what is drawn is what an evaluation plays."""

import jax
import numpy as np
import pytest
from PIL import Image
from small_runs import train

from rljax import evaluation
from rljax.cli import watch as watch_cli
from rljax.utils import imports, seeds
from rljax.utils.forkserver import EnvError
from rljax.watch import episodes, film, panel, pictures

pytestmark = pytest.mark.usefixtures("undrawn")
SHORT = dict(total_timesteps=640, eval_every=0, eval_episodes=0)
ON_HOST, CORE = dict(env="host_probes:RewardByAction"), dict(core="gru", core_size=4)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    train(run_dir, **SHORT)
    return run_dir


@pytest.mark.parametrize(
    ("settings", "greedy"),
    [
        ({}, False),
        (ON_HOST, False),
        pytest.param({}, True, marks=pytest.mark.slow),
        pytest.param(ON_HOST, True, marks=pytest.mark.slow),
        pytest.param(CORE, False, marks=pytest.mark.slow),
        pytest.param({**ON_HOST, **CORE}, False, marks=pytest.mark.slow),
    ],
)
def test_what_is_drawn_is_what_an_evaluation_plays(settings, greedy):
    run = train(**SHORT | settings)
    learners = run.learners()
    keys = evaluation.evaluation_keys(seeds.keys(run.seeds), evaluation.FRESH)
    wanted = evaluation.evaluate(run.config, learners, keys, 3, greedy, max_steps=20)
    for i in range(2):
        learner = jax.tree.map(lambda x, i=i: x[i], learners)
        played = episodes(run.config, learner, keys[i], 3, greedy, max_steps=20)
        assert [one.returns[-1] for one in played] == wanted.returns[i].tolist()
        assert [len(one.obs) - 1 for one in played] == wanted.lengths[i].tolist()
        assert [one.finished for one in played] == wanted.finished[i].tolist()


@pytest.mark.slow
def test_what_the_agent_thinks_with_a_core_where_python_steps():
    run = train(**SHORT | CORE | {"env": "gymnasium/CartPole-v1"})
    (one,) = run.play(greedy=False, max_steps=6)
    policy = run.policy()
    carry = policy.initial_carry()
    assert len(one.obs) == 7
    for obs, distribution, value in list(zip(one.obs, one.distributions, one.values))[:-1]:
        wanted = policy.distribution(obs, carry), policy.value(obs, carry)
        np.testing.assert_allclose(distribution.probs, np.ravel(wanted[0].probs), rtol=1e-5)
        np.testing.assert_allclose(value, wanted[1], rtol=1e-5)
        _, carry = policy(obs, jax.random.key(0), carry)


@pytest.mark.slow
def test_an_episode_that_is_cut_has_as_many_steps():
    run = train(**SHORT | {"env": "CartPole-v1"})
    learner = jax.tree.map(lambda x: x[0], run.learners())
    (one,) = episodes(run.config, learner, jax.random.key(3), 1, greedy=False, max_steps=5)
    assert len(one.obs) == 6
    assert one.returns == [0, 1, 2, 3, 4, 5]
    assert not one.finished
    policy = run.policy(5)
    for obs, distribution, value in zip(one.obs, one.distributions, one.values):
        np.testing.assert_allclose(policy.distribution(obs).probs, distribution.probs, rtol=1e-5)
        np.testing.assert_allclose(policy.value(obs), value, rtol=1e-5)


def test_a_run_has_a_picture_of_every_moment(run_dir, tmp_path, capfd):
    path = tmp_path / "agent.gif"
    flags = [str(run_dir), "--episodes", "2", "--output", str(path), "--seed", "6"]
    assert watch_cli.main("Shows.\n", flags) == 0
    told = capfd.readouterr().out
    with Image.open(path) as gif:
        assert gif.size == (pictures.SIZE, pictures.SIZE * 3 // 4 + panel.HEIGHT)
        assert f"{path}: 4 pictures, returns " in told  # episodes of one step
    assert watch_cli.main("Shows.\n", [*flags, "--bare"]) == 0
    with Image.open(path) as gif:
        assert gif.size == (pictures.SIZE, pictures.SIZE * 3 // 4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--output", "agent.avi"], "output = 'agent.avi': must end in .gif or .mp4"),
        (["--seed", "9"], "seed = 9: the run has 5, 6"),
        (["--checkpoint", "best"], "has no checkpoint 'best'"),
        (["--fps", "0"], "fps = 0.0: must be above 0 and at most 100"),
        (["--episodes", "0"], "episodes = 0: must be at least 1"),
    ],
)
def test_bad_input_is_one_line(run_dir, tmp_path, monkeypatch, capfd, flags, message):
    monkeypatch.chdir(tmp_path)
    assert watch_cli.main("Shows.\n", [str(run_dir), *flags]) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def drawing(given):
    return train(**SHORT, env="host_probes:Drawing", env_kwargs={"given": given})


def test_an_environment_draws_itself():
    images, _ = drawing("picture").pictures(episodes=2, bare=True)
    assert [image.size for image in images] == [(600, 400)] * 4
    assert [image.getpixel((0, 0))[0] for image in images] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("error", "cannot be drawn: RuntimeError: no context of OpenGL"),
        ("nothing", r"cannot be drawn: render gave an array \[\] of object"),
    ],
)
def test_an_environment_that_cannot_be_drawn(given, why):
    with pytest.raises(EnvError, match=why):
        drawing(given).pictures()


def test_windows_need_a_display_and_gymnasium(run_dir, tmp_path, monkeypatch, capfd):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    settings = {"env": "gymnasium/CartPole-v1", "num_seeds": 1}
    train(tmp_path / "run", **SHORT | settings)
    for path, message in (
        (tmp_path / "run", "render_mode = 'human' needs a display: DISPLAY and WAYLAND_DISPLAY"),
        (run_dir, "is written in JAX, and gymnasium's environments alone have windows"),
    ):
        assert watch_cli.main("Shows.\n", [str(path), "--render", "human"]) == 2
        error = capfd.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_without_the_package_there_is_no_mp4(tmp_path, monkeypatch):
    monkeypatch.setattr(imports.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'imageio-ffmpeg is missing: pip install -e ".\[video\]"'):
        film.check(tmp_path / "agent.mp4")


def test_channels_have_colors_and_frames_are_the_newest():
    channels = np.zeros((10, 10, 4), bool)
    channels[2, 3, 1] = True
    image = pictures.of_observation(channels, channels, channels)
    assert image.size == (320, 320)
    assert image.getpixel((3 * 32 + 5, 2 * 32 + 5)) == pictures.COLORS[1]
    assert image.getpixel((5, 5)) == (24, 24, 24)
    frames = np.zeros((4, 84, 84), np.uint8)
    frames[-1] = 200
    image = pictures.of_observation(frames, frames, frames)
    assert image.size == (336, 336)
    assert image.getpixel((100, 100)) == (200, 200, 200)


def test_vectors_are_bars():
    vector = np.array([1.0, -1.0], np.float32)
    image = pictures.of_observation(vector, -np.ones(2), np.ones(2))
    middle = image.height // 2
    assert image.getpixel((80, middle - 40)) == pictures.COLORS[0]  # up
    assert image.getpixel((240, middle + 40)) == pictures.COLORS[1]  # down
    assert image.getpixel((240, middle - 40)) == (255, 255, 255)


def test_videos_are_drawn_while_a_run_trains(tmp_path):
    undisturbed = train(**SHORT)
    run = train(tmp_path / "run", **SHORT, render_every=200)
    names = [path.name for path in sorted((tmp_path / "run" / "videos").iterdir())]
    assert names == [f"seed_5_{steps:012d}.gif" for steps in (208, 400, 608)]
    jax.tree.map(np.testing.assert_array_equal, undisturbed.state, run.state)


def test_an_environment_that_cannot_be_played_again_stops_nothing(tmp_path, monkeypatch):
    from rljax import watch

    def failing(*_):
        raise EnvError("it is gone")

    monkeypatch.setattr(watch, "episodes", failing)
    with pytest.warns(UserWarning, match="no video after 400 steps: it is gone"):
        run = train(tmp_path / "run", **SHORT, render_every=400)
    assert run.status == "completed"


def test_videos_need_a_directory():
    with pytest.raises(ValueError, match="render_every = 400: needs a run_dir for its videos"):
        train(**SHORT, render_every=400)
