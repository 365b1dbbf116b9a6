import subprocess
import sys

import pytest

from rljax.utils import imports


@pytest.fixture
def slow_module(tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text("speed = 3\n")
    (tmp_path / "its_user.py").write_text(
        "import slow_to_import as slow\n\ndef use(name='speed'):\n    return getattr(slow, name)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("slow_to_import", "its_user"):
        sys.modules.pop(name, None)


def test_a_deferred_module_is_imported_at_its_first_use(slow_module):
    with imports.deferred("slow_to_import"):
        import its_user
    assert "slow_to_import" not in sys.modules
    assert its_user.use() == 3
    import slow_to_import

    assert its_user.use() == slow_to_import.speed
    with pytest.raises(AttributeError, match="slow_to_import"):
        its_user.use("size")


def test_a_deferred_module_that_is_used_or_imported_already_is_the_module_itself(slow_module):
    with imports.deferred("slow_to_import"):
        import its_user

        assert its_user.use() == 3
        used = sys.modules["slow_to_import"]
        with imports.deferred("slow_to_import"):
            import slow_to_import

            assert slow_to_import is used
    assert sys.modules["slow_to_import"] is used


@pytest.mark.slow
def test_a_state_of_gymnax_is_unpickled_without_what_draws_environments():
    program = (
        "import sys; from rljax.envs import jax_envs;"
        "state = jax_envs.unpickled(b'cgymnax.environments.misc.pong\\nPong\\n.');"
        "print(state.__name__, 'seaborn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["Pong", "False"], done.stderr


@pytest.mark.slow
def test_gymnax_is_imported_without_what_draws_its_environments():
    program = (
        "import sys; from rljax.envs import jax_envs; gymnax = jax_envs.import_gymnax();"
        "print('seaborn' in sys.modules, 'matplotlib.pyplot' in sys.modules);"
        "from gymnax.environments.misc import pong;"
        "print(len(pong.sns.color_palette('cubehelix', 5)), pong.plt.figure().axes)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False", "5", "[]"], done.stderr


def test_a_folder_that_has_the_name_of_a_package_is_not_the_package(tmp_path, monkeypatch):
    (tmp_path / "no_package").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"of it: the package no_package is missing: pip install"):
        imports.check_installed("of it", "extra", "no_package")
    imports.check_installed("of it", "extra", "pytest")
