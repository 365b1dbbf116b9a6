import jax
import jax.numpy as jnp
import numpy as np

from rljax.utils import compilation
from rljax.utils.compilation import jit_in_order, jit_once

OLD = "enable_concurrency_optimized_scheduler"


def test_a_program_that_runs_once_is_compiled_quickly_where_it_is_small(monkeypatch):
    used = []
    jit = jax.jit

    def noted(function, compiler_options=None, **kwargs):
        program = jit(function, compiler_options=compiler_options, **kwargs)

        class Noted:
            eval_shape = program.eval_shape

            def __call__(self, *args, **kwargs):
                used.append("quick" if compiler_options else "usual")
                return program(*args, **kwargs)

        return Noted()

    monkeypatch.setattr(compilation.jax, "jit", noted)
    monkeypatch.setattr(compilation, "FEW", 10)
    spread = jit_once(lambda x, size: jnp.full(size, x), static_argnames=("size",))
    np.testing.assert_array_equal(spread(2.0, size=10), np.full(10, 2.0))
    np.testing.assert_array_equal(spread(2.0, size=11), np.full(11, 2.0))
    assert used == ["quick", "usual"]
    assert jax.eval_shape(lambda x: spread(x, size=3), 2.0).shape == (3,)  # as JAX would refuse it
    assert used[2:] == ["usual"]


def test_programs_are_forgotten_where_they_are_many(monkeypatch):
    made, cleared = [], []
    monkeypatch.setattr(compilation, "_kept", [])
    monkeypatch.setattr(compilation.jax, "clear_caches", lambda: cleared.append(True))
    make = compilation.kept(made.append)
    for most, times in ((1.0, 1), (0.0, 2)):
        monkeypatch.setattr(compilation, "MAPPED", most)
        make(7)
        compilation.make_room()
        make(7)
        assert made == [7] * times
        assert cleared == [True] * (times - 1)


def test_an_order_of_operations_in_the_users_own_flags_stays(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_prefer_vector_width=512")
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    function = lambda x: (jnp.tanh(x) @ x.T, jnp.sum(x))  # noqa: E731
    jax.tree.map(np.testing.assert_array_equal, jit_in_order(function)(x), jax.jit(function)(x))
    assert compilation.in_order()
    for said in ("scheduler_type=CPU_SCHEDULER_TYPE_DEFAULT", f"{OLD}=true"):
        monkeypatch.setenv("XLA_FLAGS", f"--xla_cpu_{said}")
        assert compilation.in_order() is None
