"""Environments that were made before: one can exist only once, start slowly, or take long to
trace."""

from collections.abc import Hashable
from typing import Any

_MOST = 32
_made: dict[Hashable, Any] = {}


def get(key: Hashable) -> Any:
    """The environment that was kept for a key, or None."""
    return _made.get(key, (None,))[0]


def keep(key: Hashable, env: Any, named: Any) -> None:
    """Keeps an environment for a key, unless that is None, and what the key names, whose `id` then
    stays its own."""
    if key is not None:
        if len(_made) >= _MOST:
            _made.clear()
        _made[key] = env, named


def forget() -> None:
    """Forgets all, after an environment did not match its description."""
    _made.clear()
