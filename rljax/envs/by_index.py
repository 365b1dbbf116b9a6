"""Gymnasium environments that differ, by their index: `Config.env_kwargs` and `reset_options`.

A function from an index to a dict gives each environment its own:

    def sizes(index):
        return {"map_name": ("4x4", "8x8")[index % 2]}

    rljax.train("a2c", env="FrozenLake-v1", env_kwargs=sizes)

The constructor is called once for an environment; options are asked for at each reset. Environments
are counted from 0: in A2C the `num_envs` of a seed, in A3C those of all workers, one worker's after
another's, and in an evaluation as many as it opens, which share the episodes evenly. All must have
the spaces of the first.
"""

from collections.abc import Callable, Mapping
from typing import Any

from rljax.utils import env_settings, values
from rljax.utils.errors import in_a_line
from rljax.utils.lookup import load_function


def of_index(name: str, given: Any) -> Callable[[int], dict[str, Any]]:
    """A function from an index to a dict of an environment's own.

    Args:
        name, given: a field of `Config` and its value: pairs, a function or its path.

    Raises:
        ValueError: the path leads nowhere.
        TypeError: it leads to no function. What is returned raises one if that gives no dict, and a
            ValueError if that fails.
    """
    if not env_settings.is_function(given):
        return lambda index: values.thawed(given)
    function = load_function(name, given)

    def dict_of_index(index):
        where = f"{name} = {given!r}, for the environment {index}"
        try:
            found = function(index)
        except Exception as error:
            raise ValueError(f"{where}: {in_a_line(error)}") from error
        if not isinstance(found, Mapping):
            raise TypeError(f"{where}: must return a dict, not {found!r}")
        return dict(found)

    return dict_of_index
