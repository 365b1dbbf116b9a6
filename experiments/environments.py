"""Lists the environments that can be made here, by suite, and what installs others.

python experiments/environments.py
python experiments/environments.py minatar      # those whose id contains it, in any case
python experiments/environments.py "brax/*ant"  # those whose whole id matches

Spaces are shown of at most 12 environments, as each has to be made for that.
"""

import dataclasses
import sys

import tyro

from rljax import cli, envs
from rljax.cli import flags
from rljax.envs.spaces import Box, Discrete, Numbers
from rljax.utils.lookup import near

MOST = 12


@dataclasses.dataclass(frozen=True)
class Options:
    pattern: tyro.conf.Positional[str | None] = None
    """Of the ids: what they contain or, with a "*", "?" or "[", match as a whole."""


def main(argv: list[str] | None = None) -> int:
    """Prints the table; returns the exit status."""

    def run(argv, signals, stack):
        try:
            options = flags.parse_options(Options, __doc__.splitlines()[0], argv)
            print_table(options.pattern)
        except (ValueError, TypeError) as error:
            return cli.fail(error)
        return 0

    return cli.run_script(run, argv)


def print_table(pattern):
    found = envs.available(pattern)
    count = sum(map(len, found.ids.values()))
    if not count:
        every = [name for names in envs.available().ids.values() for name in names]
        meant = " or ".join(near(pattern, every))
        raise ValueError(f"no environment matches {pattern!r}" + (meant and f"; near is {meant}"))
    for suite, names in found.ids.items():
        print(f"\n{suite}, {'stepped by Python' if suite == 'gymnasium' else 'in JAX'}")
        for name in names:
            print(f"  {name:<45}{spaces(name) if count <= MOST else ''}".rstrip(), flush=True)
    print(f"\n{count} environments" + (f" (spaces: of {MOST} at most)" if count > MOST else ""))
    for command, names in found.missing.items():
        print(f"not here: {', '.join(names)}: {command}")


def spaces(name):
    """The observation and action space of an environment, or why it cannot be made."""
    try:
        spec = envs.make(name).spec
    except (ValueError, TypeError) as error:
        return str(error)
    kind = spec.observation.dtype if isinstance(spec.observation, Numbers) else "float32, encoded"
    return f"{list(spec.obs_shape)} {kind}; {actions(spec.action_space)}"


def actions(space):
    if isinstance(space, Discrete):
        return f"{space.n} actions"
    if isinstance(space, Box):
        return f"{list(space.shape)} from {min(space.low):g} to {max(space.high):g}"
    return f"{list(space.nvec)} actions"


if __name__ == "__main__":
    sys.exit(main())
