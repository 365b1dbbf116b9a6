"""Which environments there are, and what is said of those that cannot be made."""

import importlib.util
import subprocess
import sys

import pytest
from scripts import script

from rljax import envs
from rljax.envs import catalogue, render, suites

OF_SUITES = [
    ("brax/ant", "brax/antt"),
    ("jumanji/Snake-v1", "jumanji/Snak-v1"),
    ("pgx/minatar-breakout", "pgx/minatar-breakot"),
]
ALL_BUT_THE_EXTRAS = ("gymnax", "rljax", "gymnasium")


@pytest.fixture
def without(monkeypatch):
    """Makes a package one that is not installed."""

    def hide(package):
        def find_spec(name, *args):
            return None if name.partition(".")[0] == package else found(name, *args)

        found = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", find_spec)
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.delitem(sys.modules, f"rljax.envs.suites.{package}", raising=False)
        monkeypatch.setitem(sys.modules, package, None)  # so that importing it fails

    return hide


@pytest.fixture(scope="module")
def available():
    return envs.available()


@pytest.mark.slow
def test_importing_the_package_imports_no_suite():
    names = ", ".join(map(repr, suites.SUITES))
    code = f"import sys, rljax, rljax.envs; print(sorted({{{names}}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_what_is_available_names_what_makes_it(available):
    assert list(available.ids)[:3] == list(ALL_BUT_THE_EXTRAS)
    for suite in ALL_BUT_THE_EXTRAS:
        assert len(set(available.ids[suite])) == len(available.ids[suite]) > 0
    assert "CartPole-v1" in available.ids["gymnax"]
    assert "gymnasium/CartPole-v1" in available.ids["gymnasium"]  # as gymnax has one of that name
    assert "CliffWalking-v1" in available.ids["gymnasium"]
    assert available.ids["rljax"] == ["TMaze"]
    found = [name for names in available.ids.values() for name in names]
    assert "MNISTBandit-bsuite" not in found  # downloads
    assert "Ant-v3" not in found  # has moved elsewhere
    for name in found:
        assert callable(catalogue.find(name))


@pytest.mark.parametrize(("name", "wrong"), OF_SUITES)
def test_a_suite_that_is_installed_is_listed(name, wrong, available):
    suite = name.partition("/")[0]
    pytest.importorskip(suite)
    assert name in available.ids[suite]
    assert not any(f"rljax[{suite}]" in command for command in available.missing)


@pytest.mark.parametrize(("name", "wrong"), OF_SUITES)
def test_an_unknown_id_of_a_suite_is_answered_with_the_nearest(name, wrong):
    suite, _, rest = name.partition("/")
    pytest.importorskip(suite)
    with pytest.raises(ValueError, match=f"'{wrong}'.*unknown environment.*did you mean {rest}"):
        envs.make(wrong)


@pytest.mark.parametrize(("name", "wrong"), OF_SUITES)
def test_a_suite_that_is_missing_is_told_with_its_command(name, wrong, without):
    suite = name.partition("/")[0]
    without(suite)
    line = f"env = '{name}': a package is missing: pip install 'rljax[{suite}]'"
    with pytest.raises(ValueError) as error:  # noqa: PT011
        envs.make(name)
    assert str(error.value) == line
    found = envs.available("CartPole")
    assert found.missing[f"pip install 'rljax[{suite}]'"] == [f"{suite}/..."]
    assert suite not in found.ids


@pytest.mark.parametrize("name", ["ALE/Pong-v5", "gymnasium/ALE/Pong-v5", "ALE/Pnog-v5"])
def test_atari_is_missing_where_it_is_not_installed(name, without):
    without("ale_py")
    with pytest.raises(ValueError, match=r"a package is missing: pip install 'rljax\[atari\]'$"):
        envs.make(name)
    assert envs.available("ALE/*").missing["pip install 'rljax[atari]'"]


def test_what_gymnasium_lacks_is_missing(without):
    without("Box2D")
    found = envs.available("lander")
    assert "LunarLander-v3" in found.missing["pip install 'rljax[box2d]'"]
    assert "LunarLander-v3" not in found.ids.get("gymnasium", ())


@pytest.mark.parametrize(
    ("pattern", "suite", "expected"),
    [
        ("breakout-m", "gymnax", ["Breakout-MinAtar"]),
        ("CARTPOLE-v1", "gymnax", ["CartPole-v1"]),
        ("*-minatar", "gymnax", catalogue._of_gymnax()[5:10]),
        ("tmaz?", "rljax", ["TMaze"]),
        ("tma?", "rljax", None),
    ],
)
def test_a_pattern_is_a_part_or_matches_the_whole(pattern, suite, expected):
    assert envs.available(pattern).ids.get(suite) == expected


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("navix/Navix-Empty-5x5-v0", "nightly build of TensorFlow Probability"),
        ("pobax/tmaze_5", "nightly build of TensorFlow Probability"),
        ("popgym-arcade/Count", "another package over gymnax"),
        ("popgym_arcade/Count", "another package over gymnax"),
        ("kinetix/Kinetix-Symbolic", "JAX of at most 0.9.0"),
    ],
)
def test_suites_that_do_not_fit_are_refused_with_the_reason(name, why):
    with pytest.raises(ValueError, match=f"^env = '{name}': .*is not supported: .*{why}"):
        envs.make(name)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("cartpole", "CartPole-v[01]"), ("TMase", "TMaze"), ("qqqqqqqq", r"available\(\) lists them")],
)
def test_an_unknown_id_is_answered_from_all_lists(wrong, near):
    with pytest.raises(ValueError, match=f"unknown environment '{wrong}': .*{near}"):
        envs.make(wrong)


def test_an_unknown_id_may_lack_its_prefix():
    pytest.importorskip("pgx")
    with pytest.raises(ValueError, match=r"did you mean .*pgx/minatar-breakout"):
        envs.make("minatar-breakouts")


def test_an_import_that_fails_is_told(monkeypatch):
    def fail(name):
        raise ImportError("no such symbol\nin it")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ValueError, match=r"env = 'pgx/x': pgx cannot be imported: .*symbol in it$"):
        suites.factory("pgx/x")


def test_a_download_that_fails_is_told(monkeypatch):
    class Suite:
        @staticmethod
        def make(name):
            raise ConnectionError("no route\nto host")

    monkeypatch.setattr(suites, "load", lambda suite: Suite)
    line = r"^env = 'pgx/x': .*download.*ConnectionError: no route to host$"
    with pytest.raises(ValueError, match=line):
        envs.make("pgx/x")


def test_a_display_that_is_missing_is_told(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    human = (("render_mode", "human"),)
    with pytest.raises(ValueError, match=r"^env = 'CartPole-v0': .*'human' needs a display"):
        envs.make("CartPole-v0", human)
    monkeypatch.setenv("DISPLAY", ":0")
    assert callable(catalogue.find("CartPole-v0"))
    assert render.has_display()


def test_the_script_lists_few_with_their_spaces(capsys):
    main = script("environments").main
    assert main(["pendulum-v"]) == 0
    out = capsys.readouterr().out
    assert "gymnax, in JAX\n  Pendulum-v1 " in out
    assert "[3] float32; [1] from -2 to 2" in out
    assert "gymnasium, stepped by Python\n" in out


def test_the_script_lists_many_without_spaces(capsys):
    assert script("environments").main([]) == 0
    out = capsys.readouterr().out
    assert "\n  CartPole-v1\n" in out
    assert "(spaces: of 12 at most)" in out
    assert "float32" not in out


def test_the_script_tells_of_a_pattern_without_a_match(capsys):
    assert script("environments").main(["Pendulun-v7"]) == 2
    assert "no environment matches 'Pendulun-v7'; near is Pendulum-v1" in capsys.readouterr().err
