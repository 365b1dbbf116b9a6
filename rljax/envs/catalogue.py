"""What an environment's id or path names, and which ids there are.

Ids are gymnax's, those of this package or, where neither has one of that name, gymnasium's; the
prefixes "gymnax/" and "gymnasium/" choose, those of `suites` name theirs, and "ALE/" is `atari`.
"package.module:attribute" is the path of an environment, of its class or of a function that makes
it.
"""

import contextlib
import copy
import fnmatch
import importlib.util
import itertools
from typing import Any, NamedTuple

import gymnasium

from rljax.envs import atari, jax_envs, suites
from rljax.envs.render import check_display
from rljax.utils.lookup import load_attribute, load_module, near, unknown

_DOWNLOADS = "MNISTBandit-bsuite"
_LISTED = "rljax.envs.available() lists them"
_OWN = {"TMaze": "rljax.envs.tmaze:TMaze"}  # this package's own environments
_PLUGINS = {
    "gymnasium.envs.box2d": ("Box2D", "rljax[box2d]"),
    "gymnasium.envs.mujoco": ("mujoco", "rljax[mujoco]"),
    "gymnasium.envs.phys2d": ("pygame", "gymnasium[classic-control]"),
    "ALE/": ("ale_py", "rljax[atari]"),
    "ale_py": ("ale_py", "rljax[atari]"),
    "MiniGrid-": ("minigrid", "minigrid"),
    "dm_control/": ("shimmy", "shimmy[dm-control]"),
}
"""What gymnasium's environments import and what to install for it, by the beginning of a registered
environment's entry point or of an id."""


class Available(NamedTuple):
    """What can be made here, and what cannot."""

    ids: dict[str, list[str]]  # as `make` takes them, by suite
    missing: dict[str, list[str]]  # by what installs them; "brax/..." are all of brax


def has_vectors(env: Any) -> bool:
    """Whether observations are known, by the id alone, to be no images: making an environment may
    start JAX. Where gymnax and gymnasium share an id, it is the same environment."""
    name = env.removeprefix("gymnasium/").removeprefix("gymnax/") if isinstance(env, str) else ""
    entry = str(getattr(gymnasium.registry.get(name), "entry_point", ""))
    kinds = ("classic_control", "box2d", "mujoco", "toy_text")
    return entry.startswith(tuple(f"gymnasium.envs.{kind}" for kind in kinds)) and (
        "car_racing" not in entry
    )


def factorizes(env: Any) -> bool:
    """Whether an environment, known by its id, factorises matrices as it is reset (brax's masses),
    which takes XLA a thread of its own (`platform.cpu_devices`)."""
    return str(env).startswith("brax/")


def find(env: Any) -> Any:
    """What an id or a path names: an environment, or what makes one of keyword arguments; anything
    else is returned as it is.

    Raises:
        ValueError: it names nothing, or a package is missing.
    """
    if not isinstance(env, str):
        return env
    if env.startswith("gymnasium/"):
        return _gymnasium_factory(env.removeprefix("gymnasium/"))
    if ":" in env:
        return load_attribute(env)
    if env.startswith(atari.PREFIX):
        return atari.factory(env, _registration(env))
    return suites.factory(env) if suites.prefix(env) else _gymnax_factory(env)


def _gymnax_factory(env):
    gymnax = jax_envs.import_gymnax()
    name = env.removeprefix("gymnax/")
    if name == _DOWNLOADS:
        raise ValueError(f"env = {name!r}: it downloads its data when made and is not supported")
    if name in gymnax.registered_envs:

        def build(**kwargs):
            return gymnax.make(name, **kwargs)[0]

        build.__registration__ = gymnax.make
        return build
    if env in _OWN:
        return load_attribute(_OWN[env])
    if env.startswith("gymnax/"):
        raise _unknown(name, _of_gymnax())
    if name in gymnasium.registry:
        return _gymnasium_factory(name)
    raise _unknown(name, _all_for(name))


def _gymnasium_factory(env):
    """For an id, or for "module:id", where importing the module registers the id."""
    module, _, name = env.rpartition(":")
    if module:
        load_module(env, module)
    spec = _registration(name)

    # The specification instead of the id, which another process may not know; without the wrapper
    # that checks that it was reset, which it always is.
    quick = copy.deepcopy(spec)
    quick.order_enforce = False
    if str(spec.entry_point).startswith("__main__:"):  # another module in another process
        quick.entry_point = load_attribute(spec.entry_point)

    def build(**kwargs):
        check_display(name, kwargs.get("render_mode"))  # MuJoCo would abort
        try:
            return gymnasium.make(quick, disable_env_checker=True, **kwargs)
        except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
            how = _how_to_install(str(spec.entry_point))
            raise ValueError(f"env = {name!r}: {how or error}") from error

    build.__registration__ = spec
    return build


def _registration(name):
    if name.startswith(atari.PREFIX):
        _register_atari()
        if _is_missing("ale_py"):
            raise ValueError(f"env = {name!r}: {_how_to_install(name)}")
    spec = gymnasium.registry.get(name)
    if spec is None:
        raise _unknown(name, list(gymnasium.registry))
    return spec


def _register_atari():
    with contextlib.suppress(ValueError):
        load_module(atari.PREFIX, "ale_py")


def available(pattern: str | None = None) -> Available:
    """The environments that can be made here. All suites that are installed are imported, which
    takes seconds; no environment is made.

    Args:
        pattern: keeps the ids that contain it or, if it has a "*", "?" or "[", match it as a whole;
            upper and lower case are alike.
    """
    ids, missing = _of_gymnasium()
    ids = {"gymnax": _of_gymnax(), "rljax": list(_OWN), "gymnasium": ids}
    if pattern is not None:
        missing = {command: _matching(pattern, names) for command, names in missing.items()}
    for suite in suites.SUITES:
        try:
            ids[suite] = suites.ids(suite)
        except ValueError as error:
            missing[str(error).removeprefix(suites.MISSING)] = [f"{suite}/..."]
    if pattern is not None:
        ids = {suite: _matching(pattern, names) for suite, names in ids.items()}
    return Available(
        *({key: found[key] for key in found if found[key]} for found in (ids, missing))
    )


def _matching(pattern, ids):
    is_whole = any(c in pattern for c in "*?[")
    wanted = pattern.lower() if is_whole else f"*{pattern.lower()}*"
    return [name for name in ids if fnmatch.fnmatchcase(name.lower(), wanted)]


def _of_gymnax():
    return [name for name in jax_envs.import_gymnax().registered_envs if name != _DOWNLOADS]


def _of_gymnasium():
    """The ids that can be made, and by what installs them those that cannot."""
    _register_atari()
    gymnax, ids, missing = _of_gymnax(), [], {}
    for name, spec in gymnasium.registry.items():
        entry = spec.entry_point
        if getattr(entry, "__module__", None) == "gymnasium.envs":  # says where it has gone
            continue
        module, package = _plugin(str(entry)) or _plugin(name) or ("gymnasium", "")
        to = missing.setdefault(f"pip install '{package}'", []) if _is_missing(module) else ids
        to.append(f"gymnasium/{name}" if name in gymnax else name)
    for start, (module, package) in _PLUGINS.items():
        if _is_missing(module):
            missing.setdefault(f"pip install '{package}'", [f"{start}..."])
    return ids, missing


def _is_missing(module):
    return importlib.util.find_spec(module) is None


def _unknown(name, known):
    plugin = _plugin(name)
    is_there = plugin is None or not _is_missing(plugin[0])
    hint = "" if is_there else f" ({name} comes with pip install '{plugin[1]}')"
    return ValueError(unknown("environment", name, known, _LISTED) + hint)


def _all_for(name):
    """The ids to offer for an unknown one; those of the suites, which take seconds to import, only
    if no other is near."""
    # Those of gymnasium whose package is missing say what installs them when made.
    ids = [*_of_gymnax(), *_OWN, *gymnasium.registry]
    if not near(name, ids, cutoff=0.8):
        ids += itertools.chain(*available().ids.values())
    return ids


def _how_to_install(name):
    """The message where a plugin's package is missing; None if it is no plugin's."""
    plugin = _plugin(name)
    return f"{suites.MISSING}pip install '{plugin[1]}'" if plugin else None


def _plugin(name):
    return next((_PLUGINS[start] for start in _PLUGINS if name.startswith(start)), None)
