"""The command line of a run."""

import dataclasses
from collections.abc import Callable

from rljax.cli import end, fail, flags, run_script
from rljax.runs import directory, settings
from rljax.runs.settings import Settings
from rljax.utils import forkserver, hosts, platform


def main(
    algorithm: str, doc: str, argv: list[str] | None = None, on_log: Callable | None = None
) -> int:
    """Trains, or resumes a run; returns the exit status. `--help` shows the first line of `doc`;
    `on_log` is that of `rljax.train`."""

    def run(argv, signals, stack):
        try:
            asked = parse(algorithm, doc.splitlines()[0], argv)
            from rljax.runs import training  # and with it JAX, which --help does without

            if training.fits_one_thread(asked):
                platform.use_one_thread(asked.options.device)
            is_resumed = asked.options.resume is not None
            run = stack.enter_context(training.prepared(asked, on_log, resume=is_resumed))
        except (ValueError, TypeError) as error:
            return fail(error)
        try:
            return hosts.leave_ended(end(run()))
        except forkserver.RefusedError as error:
            return fail(error)

    return run_script(run, argv)


def parse(algorithm: str, description: str, argv: list[str]) -> Settings:
    """The settings of the flags, on top of a preset, or of the run to be resumed; raises as
    `flags.parse` does, and ValueError if the preset is wrong, or a setting may not change."""
    resume = flags.given("resume", argv)
    if resume is not None:
        before = settings.saved(resume, algorithm)
    else:
        env, preset = flags.given("env", argv), flags.given("preset", argv)
        before = settings.start_from(algorithm, env, preset)
    parts = (before.config, before.options, *before.own)
    config, options, *own = flags.parse(parts, description, argv)
    after = before._replace(config=config, options=options, own=tuple(own))
    if resume is not None:
        settings.check_resumable(before, after)
        if options.run_dir != before.options.run_dir:
            raise ValueError(f"run_dir = {options.run_dir}: stays as it is on resume")
    elif options.run_dir is None:
        run_dir = directory.default_path(config.env, algorithm, options.seed)
        after = after._replace(options=dataclasses.replace(options, run_dir=run_dir))
    return after
