"""The command line of a search."""

import dataclasses
import sys
from typing import Any

import tyro

from rljax.cli import fail, flags, run_script, space
from rljax.runs import directory, settings
from rljax.search import axes
from rljax.search.options import SearchOptions
from rljax.sweep.options import SweepOptions

SHOWN_FAILURES = 3  # trials whose failure is explained, at most
MOST_VALUES = 1000  # of an axis
MAY_CHANGE = ("max_parallel", "device", "quiet", "log_format")  # on resume, and nothing else


@dataclasses.dataclass(frozen=True)
class AxisOptions:
    """The axes of a search."""

    axis: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A setting to search, as NAME=log:LOW:HIGH, NAME=linear:LOW:HIGH or NAME=VALUE,VALUE,...; once
    for each. One that counts under a condition: 'core_size=32,64 if core=lstm,gru'."""


def main(doc: str, argv: list[str] | None = None) -> int:
    """Searches, or resumes a search; returns the exit status."""

    def run(argv, signals, stack):
        from rljax.search import directory as search_directory

        try:
            asked = parse(doc.splitlines()[0], argv)
            search = stack.enter_context(search_directory.prepared(asked))
            done = search()
        except (ValueError, TypeError) as error:
            return fail(error)
        for failure in done.failures[:SHOWN_FAILURES]:
            print(f"warning: {failure.trial}: {failure.why}", file=sys.stderr)
        return done.exit_status

    return run_script(run, argv)


def parse(description: str, argv: list[str]) -> Any:
    """The `search.brackets.Asked` of the flags, on top of a preset, or of the search to be resumed;
    raises as `flags.parse` does, and ValueError if an axis is wrong."""
    from rljax.search.brackets import Asked
    from rljax.search.directory import search_of

    argv, envs = _envs(argv)
    if folder := flags.given("resume", argv):
        before = search_of(folder)
        base, options, own = before.base, before.options, before.own
        search = before.search
    else:
        algorithm = flags.given("algorithm", argv) or "a2c"
        env, preset = flags.given("env", argv), flags.given("preset", argv)
        told = settings.start_from(algorithm, env, preset)
        base, own = told.config, told.own
        options, search = SweepOptions(num_seeds=4), SearchOptions(envs=envs)
    parts = base, options, search, AxisOptions(), *own
    base, options, search, given, *own = flags.parse(parts, description, argv)
    if folder:
        return _resumed(before, (base, options, search, tuple(own)), given, envs)
    options.validate()
    search.validate()
    if not given.axis:
        raise ValueError(
            "axis: must be given at least once, as NAME=log:LOW:HIGH or NAME=VALUE,..."
        )
    own = tuple(own)
    made = axes.checked(_axes(given.axis), base, own)
    if options.run_dir is None:
        name = f"search-{options.algorithm}"
        run_dir = directory.default_path("+".join(envs) or base.env, name, options.seed)
        options = dataclasses.replace(options, run_dir=run_dir)
    return Asked(base, options, search, own, made)


def _resumed(before, parts, given, envs):
    """The search that is resumed, with the options that may change."""
    base, options, search, own = parts
    allowed = {n: getattr(options, n) for n in MAY_CHANGE}
    expected = dataclasses.replace(before.options, **allowed)
    options = dataclasses.replace(options, resume=None)
    is_same = (base, options, search, own) == (before.base, expected, before.search, before.own)
    if not is_same or given.axis or envs not in ((), before.search.envs):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in MAY_CHANGE)
        raise ValueError(f"on resume only {names} may change")
    return before._replace(options=expected)


def _envs(argv):
    """The flags with at most one environment after --env, and all of them if they are several."""
    if "--env" not in argv:
        return argv, ()
    if argv.count("--env") > 1:
        raise ValueError("env: is given twice")
    start = argv.index("--env") + 1
    end = next((i for i in range(start, len(argv)) if argv[i].startswith("--")), len(argv))
    found = tuple(argv[start:end])
    if len(found) < 2:
        return argv, ()
    return [*argv[: start + 1], *argv[end:]], found


def _axes(texts):
    found = {}
    for text in texts:
        plain, has_condition, condition = text.partition(" if ")
        name, values = space.parse(plain.strip(), MOST_VALUES)
        if name in found:
            raise ValueError(f"axis {name}: is given twice")
        if has_condition:
            parent, wanted = space.parse(condition.strip(), MOST_VALUES)
            values = axes.When(values, parent, wanted)
        found[name] = values
    return found
