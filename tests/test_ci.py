"""Where every package is installed, a skipped test fails; which tests are skipped is written."""

import tomllib

import pytest

pytest_plugins = ["pytester"]

LACKING = "import pytest\npytest.importorskip('no_such_package')"
SKIPS = """
import pytest

@pytest.mark.skipif(True, reason="needs root")
def test_machine(): ...

def test_package():
    pytest.importorskip("no_such_package")

@pytest.mark.xfail
def test_expected():
    assert False

def test_passes(): ...
"""


@pytest.fixture
def run(pytester, request, monkeypatch):
    """Runs pytest on a module with skips and on one that is skipped, with this conftest."""
    conftest = request.config.rootpath / "tests" / "conftest.py"
    pytester.makeconftest(conftest.read_text())
    pytester.makepyfile(test_lacking=LACKING, test_skips=SKIPS)
    monkeypatch.setenv("RLJAX_SKIPPED", "skipped")

    def run(*flags):
        result = pytester.runpytest_subprocess(*flags, timeout=100)
        skipped = (pytester.path / "skipped").read_text().splitlines()
        return result, sorted(skipped)

    return run


@pytest.mark.slow
def test_skips_are_written(run, monkeypatch):
    monkeypatch.setenv("RLJAX_NO_SKIPS", "0")
    result, skipped = run("--durations=1")
    result.assert_outcomes(passed=1, skipped=3, xfailed=1)
    names = ["test_lacking.py", "test_skips.py::test_machine", "test_skips.py::test_package"]
    assert skipped == names
    result.stdout.fnmatch_lines(["*= seconds per file =*", "* test_skips.py"])


@pytest.mark.slow
def test_skips_fail_unless_the_machine_lacks_what_they_need(run, monkeypatch):
    monkeypatch.setenv("RLJAX_NO_SKIPS", "1")
    result, skipped = run("-n1")  # as in CI: another process finds the skip
    assert result.ret != 0
    assert skipped == ["test_skips.py::test_machine"]
    result.assert_outcomes(passed=1, skipped=1, xfailed=1, failed=1, errors=1)
    result.stdout.fnmatch_lines("*no_such_package*nothing may be skipped")
    assert "seconds per file" not in result.stdout.str()


def test_all_names_every_extra_for_a_cpu(request):
    """The slow tests run with `all`: what it lacks is tested nowhere."""
    pyproject = tomllib.loads((request.config.rootpath / "pyproject.toml").read_text())
    extras = pyproject["project"]["optional-dependencies"]
    named = [name for line in extras["all"] for name in line[len("rljax[") : -1].split(",")]
    assert sorted(named) == sorted(set(extras) - {"all", "test", "cuda"})
