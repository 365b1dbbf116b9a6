"""Environments in JAX, with the gymnax interface, as pure functions of one episode.

They are of a single environment, for the caller to `vmap`. What it returns is checked while it is
traced, and cast: rewards to float32, flags to bool, observations to one float32 array. An array of
bools or of whole numbers of 8 or 16 bits keeps its dtype, for `networks.blocks`.
"""

import contextlib
import pickle
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.envs import empties, encoding, infos, spaces
from rljax.envs.interface import MDP, EnvSpec, Step
from rljax.envs.parameters import Varied
from rljax.envs.spaces import Box, Numbers
from rljax.utils import imports
from rljax.utils.errors import reworded, what_is_wrong
from rljax.utils.pytrees import named_leaves

_DRAWING = "seaborn", "matplotlib.pyplot"  # what gymnax's environments import to draw themselves
_RETURNS = {
    "reset": "obs, state",
    "reset_env": "obs, state",
    "step_env": "obs, state, reward, terminated, info",
    "step": "obs, state, reward, terminated, truncated, info",
}
"""What the methods of the gymnax interface return."""


class WithParams(NamedTuple):
    """A state of an environment whose parameters vary."""

    params: dict[str, jax.Array]  # those that vary
    env_state: Any


def make(
    name: str,
    source: Any,
    params: Any,
    varied: Varied | None = None,
    log_info: tuple[str, ...] = (),
) -> MDP:
    """An `MDP` of `source`, which has the methods of the gymnax interface.

    Args:
        params: what the methods take.
        varied: those that are drawn at each reset, or differ between environments.
        log_info: the numbers of its info that `Step.info` has, as `infos.numbers` finds them.

    Raises:
        ValueError, TypeError: a space is not supported, or the environment, when traced, does not
            follow the interface or lacks such a number; the message says what was expected.
    """
    try:
        return _make(name, source, params, varied, log_info)
    except (ValueError, TypeError) as error:
        raise reworded(error, f"env = {name!r}: {what_is_wrong(error)}") from error


def import_gymnax() -> ModuleType:
    """Gymnax, whose import starts JAX's backend; with what some of its environments draw themselves
    with, it would take 1.4 s instead of 0.2."""
    with imports.deferred(*_DRAWING):
        import gymnax
    return gymnax


def unpickled(packed: bytes) -> Any:
    """`pickle.loads`, which may import gymnax for its types, as `import_gymnax` does."""
    with imports.deferred(*_DRAWING):
        return pickle.loads(packed)


def _make(name, source, params, varied, log_info):
    # Values, also under `jax.jit`; what is traced below, operation by operation, would take long.
    with jax.ensure_compile_time_eval():
        example = params
        if varied is not None:
            example = params.replace(**varied.draw(jax.random.key(0), jnp.int32(0)))
        space = _declared_action_space(source, example)
        observation_space = _declared_observation_space(source, example)
        action_space = spaces.action_space(space)
        first = np.asarray(getattr(space, "start", 0), np.int32)
    if isinstance(action_space, Box) and hasattr(source, "action_mask"):
        raise ValueError("continuous actions have no action_mask")
    source = _in_todays_form(source, example, action_space)
    kind = _observation(source, example, action_space, observation_space)
    encode = partial(encoding.encode, kind, xp=jnp)
    own_mask = getattr(source, "action_mask", None)

    def apart(state):
        """The parameters and the environment's own state."""
        if varied is None:
            return params, state
        return params.replace(**state.params), state.env_state

    def call(method, key, state, action):
        params, own = apart(state)
        action = action + first if first.any() else action
        obs, after, reward, *flags, info = _called(source, method, key, own, action, params)
        infos.check(source, info)
        after = _typed_as(own, after)
        after = after if varied is None else WithParams(state.params, after)
        return encode(obs), after, _scalar("reward", reward, jnp.float32), flags, info

    def mask(state):
        params, own = apart(state)
        return own_mask and spaces.mask(action_space, own_mask(own, params), jnp)

    def reset(key, index=0):
        drawn, given = None, params
        if varied is not None:
            key, key_params = jax.random.split(key)
            drawn = varied.draw(key_params, index)
            given = params.replace(**drawn)
        obs, state = _called(source, "reset", key, given)
        strong = jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.result_type(x)), state)
        return strong if varied is None else WithParams(drawn, strong), encode(obs)

    def logged(info):
        return infos.numbers(info, log_info, jnp) if log_info else None

    def step(key, state, action):
        obs, after, reward, (terminated,), info = call("step_env", key, state, action)
        params, own = apart(after)
        flags = _flags(terminated, source.is_truncated(own, params))
        return after, Step(obs, reward, *flags, obs, info=logged(info))

    def step_with_own_reset(key, state, action):
        obs, after, reward, flags, info = call("step", key, state, action)
        if "final_observation" not in info:
            raise TypeError(f"{type(source).__name__}.step gives no info['final_observation']")
        final_obs = encode(info["final_observation"])
        return after, Step(obs, reward, *_flags(*flags), final_obs, info=logged(info))

    resets_itself = not _resets_as_gymnax_does(source)
    if resets_itself and varied is not None and not varied.by_index:
        what = "resets itself in step, and would keep the first ones"
        raise ValueError(f"env_params drawn at each reset: {type(source).__name__} {what}")
    mdp = MDP(
        EnvSpec(name, kind, action_space, own_mask is not None),
        reset,
        step_with_own_reset if resets_itself else step,
        mask,
        by_index=varied is not None and varied.by_index,
        costly_reset=getattr(source, "costly_reset", False),
        resets_itself=resets_itself,
    )
    (state, _), _ = try_step(mdp)
    return empties.left_out(mdp, state)


def _declared_action_space(source, params):
    try:
        return source.action_space(params)
    except NotImplementedError:
        raise TypeError(f"{type(source).__name__} has no action_space(params)") from None
    except (AttributeError, TypeError) as error:
        raise TypeError(f"action_space(params) must give a space, and fails: {error}") from error


def _declared_observation_space(source, params):
    if not hasattr(source, "observation_space"):
        return None
    with contextlib.suppress(NotImplementedError):  # gymnax's base class
        return source.observation_space(params)


def _in_todays_form(source, params, action_space):
    import_gymnax()
    from rljax.envs import old_gymnax  # imports gymnax, which takes time

    return old_gymnax.adapted(source, params, _abstract_action(action_space))


def _observation(source, params, action_space, declared):
    """Found by tracing `reset`, as declared spaces can be wrong."""
    # Gymnax's own reset unpacks what reset_env returns, before it can be checked.
    methods = ("reset_env", "step_env") if _resets_as_gymnax_does(source) else ("reset", "step")
    reset, step = (partial(_called, source, method) for method in methods)
    key = jax.eval_shape(jax.random.key, 0)
    obs = _traced("reset", lambda key: reset(key, params)[0], key)
    kind = spaces.observed(declared, obs)
    if not isinstance(kind, Numbers) or not spaces.is_kept(obs.dtype):
        return kind

    def after_a_step(key, action):
        obs, *_, info = step(key, reset(key, params)[1], action, params)
        infos.check(source, info)
        return obs, info.get("final_observation", obs)

    found = _traced("step", after_a_step, key, _abstract_action(action_space))
    is_same = all(leaf.dtype == obs.dtype for leaf in jax.tree.leaves(found))
    return kind._replace(dtype=obs.dtype.name) if is_same else kind


def _abstract_action(space):
    return jax.ShapeDtypeStruct(space.shape, jnp.float32 if isinstance(space, Box) else jnp.int32)


def try_step(mdp: MDP) -> tuple[tuple[Any, Any], tuple[Any, Step]]:
    """What `reset` and `step` return, traced, so that they fail before training if they do.

    Raises:
        ValueError, TypeError: one of them fails; the message is one line.
    """
    key, action = jax.eval_shape(jax.random.key, 0), _abstract_action(mdp.spec.action_space)
    # Traced apart, so that the state is abstract in a step, as in training.
    first = _traced("reset", mdp.reset, key, jax.ShapeDtypeStruct((), jnp.int32))
    return first, _traced("step", mdp.step, key, first[0], action)


def _traced(method, function, *args):
    """`jax.eval_shape`, with its errors and the environment's own in one line."""
    try:
        return jax.eval_shape(function, *args)
    except (Exception, SystemExit) as error:
        if type(error) in (ValueError, TypeError) and "\n" not in str(error):
            raise
        line = (str(error).strip() or repr(error)).splitlines()[0]
        raise reworded(error, f"its {method} fails: {type(error).__name__}: {line}") from error


def _called(source, method, *args):
    """What a method returns, checked to be as many values as the interface says."""
    answer, wanted = getattr(source, method)(*args), _RETURNS[method]
    if isinstance(answer, tuple | list) and len(answer) == len(wanted.split()):
        return answer
    came = type(answer).__name__
    if isinstance(answer, tuple | list):
        came = f"{len(answer)} values"
    elif hasattr(answer, "shape"):
        came = f"an array of shape {answer.shape}"
    came += ", as before gymnax 1.0" if method == "step" and came == "5 values" else ""
    raise TypeError(f"{type(source).__name__}.{method} must return ({wanted}), not {came}")


def _typed_as(before, stepped):
    """A state after a step, with the types that it had before, as a loop carries it. Python's
    numbers, which are weakly typed, are cast; other types, which would lose their values, and
    another structure are refused by a TypeError that names the leaf and both types."""
    leaves, after = (dict(named_leaves(state)) for state in (before, stepped))
    if jax.tree.structure(before) != jax.tree.structure(stepped):
        only = sorted(leaves.keys() ^ after.keys())
        differing = f" ({', '.join(only)} only in one of them)" if only else ""
        raise TypeError(f"its state has another structure after a step than when reset{differing}")
    typed = []
    for name, leaf in leaves.items():
        now = jnp.asarray(after[name])
        is_other = (now.dtype, now.shape) != (leaf.dtype, leaf.shape)
        if is_other and now.weak_type and jnp.result_type(leaf, now) == leaf.dtype:
            now = now.astype(leaf.dtype)
        if (now.dtype, now.shape) != (leaf.dtype, leaf.shape):
            kinds = (f"{x.dtype}{list(x.shape)}" for x in (leaf, now))
            which = f"'{name}' in its state" if name else "its state"
            raise TypeError("{} is {} when reset and {} after a step".format(which, *kinds))
        typed.append(now)
    return jax.tree.structure(before).unflatten(typed)


def _flags(terminated, truncated):
    return _scalar("terminated", terminated, jnp.bool_), _scalar("truncated", truncated, jnp.bool_)


def _scalar(name, x, dtype):
    x = jnp.asarray(x)
    if x.shape != ():
        raise ValueError(f"{name} must be a scalar, not of shape {x.shape}")
    if not jnp.isrealobj(x):
        raise TypeError(f"{name} must be a real number, not {x.dtype}")
    return jax.lax.convert_element_type(x, dtype)


def _resets_as_gymnax_does(source):
    """Whether `step` is gymnax's own, which can be split into step and reset."""
    usual, kind = import_gymnax().environments.environment.Environment, type(source)
    return isinstance(source, usual) and kind.step is usual.step and kind.reset is usual.reset
