"""A run from its beginning to its end."""

import contextlib
import dataclasses
import itertools
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rljax import algorithms, envs
from rljax.loggers import tables, trackers
from rljax.loggers.display import Display
from rljax.loggers.trackers.feed import Feed
from rljax.runs import directory, finish, interrupts, loop, settings, start
from rljax.runs.clock import Clock
from rljax.runs.recorder import Recorder
from rljax.runs.run import Run, load
from rljax.runs.settings import Settings
from rljax.utils import compilation, forkserver, hosts, platform, pytrees, seeds, sharding


def execute(
    asked: Settings,
    on_log: Callable | None = None,
    resume: bool = False,
    loggers: Sequence[Any] = (),
) -> Run:
    """Does a run, or resumes one; whatever ends it after it has begun, this returns the `Run`.
    Arguments and errors are those of `prepared`."""
    with prepared(asked, on_log, resume, loggers) as run:
        return run()


@contextlib.contextmanager
def prepared(
    asked: Settings,
    on_log: Callable | None = None,
    resume: bool = False,
    loggers: Sequence[Any] = (),
) -> Iterator[Callable[[], Run]]:
    """A run, checked as far as possible, in a locked directory: yields a function that does it, to
    be called once. It raises RefusedError, a ValueError, if a process cannot make the environment.

    Args:
        on_log: called with a `loop.LogRow` at each row of metrics; "stop" ends the run.
        loggers: objects beside the `log` of the options, as `loggers.trackers` describes them.

    Raises:
        ValueError, TypeError: a setting is wrong, or the run cannot be resumed; nothing is left.
        KeyboardInterrupt: a signal came before the run began.
        WriteError: something could not be written; what was saved before is whole.
    """
    begun = time.perf_counter()
    algorithm = algorithms.find(asked.algorithm)
    with interrupts.noted() as signals, contextlib.ExitStack() as stack:
        asked = _settled(asked, algorithm)
        told = asked.options
        stack.enter_context(hosts.connected(told.coordinator, told.num_processes, told.process_id))
        of_all, asked = asked, _of_this_process(asked, signals)
        options = asked.options
        feed = _feed(options, loggers)
        if _in_processes(asked, algorithm):
            platform.set_xla_flags(options.device)  # the server takes them over
            forkserver.start_server()  # it imports while this process does
        # A2C's programs are spread over the cores; A3C's processes are.
        factorizes = envs.factorizes(asked.config.env)
        devices = 1 if algorithm.in_processes else platform.cpu_devices(factorizes)
        devices = devices if hosts.count() == 1 else options.devices or devices
        on_device = platform.computing_on(
            options.device, devices, in_place=True, factorizes=factorizes
        )
        device = stack.enter_context(on_device)
        stack.enter_context(sharding.using(options.devices))
        signals.check()
        compilation.make_room()
        module, keys = algorithms.module(asked.algorithm), seeds.keys(options.seeds)
        making = time.perf_counter()
        if hosts.count() > 1 or options.devices:
            _check_spread(asked, module)
            hosts.check_same(settings.in_common(*of_all))
            device += f", {sharding.described()}"
        states = module.init_seeds(asked.config, *asked.own, keys)
        signals.check()
        begin = start.resumed if resume else start.fresh
        now = _begun(stack, begin(asked, states, device))
        if now is None:
            yield lambda: _complete(options)
        else:
            together, begun = module.in_one_program(asked.config), begun - now.progress.wall_seconds
            plan = loop.Plan(asked, module, keys, together, device, on_log, signals, begun, making)
            yield lambda: _run(plan, now, feed, is_new=not resume)


def _of_this_process(asked, signals):
    """The settings of one of several processes: process 0 alone writes, shows and evaluates."""
    signals.is_shared = hosts.count() > 1
    if hosts.is_first():
        return asked
    nothing = dict(run_dir=None, log=(), eval_every=0, eval_episodes=0, quiet=True)
    return asked._replace(options=dataclasses.replace(asked.options, **nothing))


def _check_spread(asked, module):
    """Raises ValueError if what is asked for cannot use all devices, or all processes."""
    option = "coordinator" if hosts.count() > 1 else "devices"
    algorithms.check_one_program(asked.algorithm, asked.config, option)
    sharding.check_even()
    seeds.layout(asked.config, asked.options.num_seeds, hasattr(module, "parts"))


def _begun(stack, beginning):
    """What `start.fresh` or `start.resumed` gives: of several processes, process 0 has it, and the
    others its states, so that all have the same bits."""
    if hosts.count() == 1:
        return stack.enter_context(beginning)

    def make():
        now = stack.enter_context(beginning)
        return now and (now, *pytrees.without_keys(now.states))

    given = hosts.from_first(lambda: _without_states(make()))
    if given is None:
        return None
    now, plain, keys = given
    now.states = pytrees.with_keys(plain, keys)
    return now


def _without_states(given):
    if given:
        given[0].states = None
    return given


def fits_one_thread(asked: Settings) -> bool:
    """Whether XLA is known, before JAX starts, to lose by having several threads for a run: one
    agent at a time, whose updates are small. XLA hands parts of a program to other threads, which
    then takes longer than the parts: with one, CartPole 16x5 makes 1.2 times the steps/s of a
    single seed; gymnasium's, compiled `in_order`, about as many.
    """
    config, options = asked.config, asked.options
    at_once = 1 if str(config.env).startswith("gymnasium/") else options.num_seeds
    is_mlp = config.network == "mlp" or (config.network == "auto" and envs.has_vectors(config.env))
    if algorithms.find(asked.algorithm).in_processes or at_once > 1 or not is_mlp:
        return False
    towers = 2 * sum(a * b for a, b in itertools.pairwise((64, *config.hidden_sizes)))
    return config.batch_size * towers < seeds.LARGE


def _complete(options):
    hosts.finished()
    if not options.quiet:
        print(f"{options.run_dir} is complete: there is nothing left to do")
    return load(options.run_dir)


def _feed(options, loggers):
    """What rows are given to; raises as `trackers.make` does."""
    made = trackers.make((*options.log, *loggers))
    export = f"python experiments/export.py {shlex.quote(str(options.run_dir))} --to {{}}"
    return Feed(made, f"write it all with {export}" if options.run_dir else "")


def _run(plan, now, feed, is_new):
    options = plan.asked.options
    batch, title = plan.asked.config.batch_size, _title(plan, now.updates)
    total = plan.asked.config.num_updates * options.num_seeds
    steps = int(now.updates.sum()) * batch, total * batch
    with (
        Display(title, *steps, options.quiet, options.log_format) as display,
        Recorder(options.run_dir, options.keep_checkpoints, feed) as recorder,
    ):
        plan = dataclasses.replace(plan, display=display, recorder=recorder)
        _begin(feed, plan, now)
        try:
            loop.train(plan, now, Clock(now.progress, plan.making))
        except forkserver.RefusedError:
            if is_new:
                recorder.discard()
            raise
        return finish.finish(plan, now)


def _begin(feed, plan, now):
    """Gives loggers the record of the run and, of one that is resumed, the rows so far."""
    if not feed.threads:
        return
    options, rows = plan.asked.options, []
    if options.run_dir:
        record = directory.read_record(options.run_dir)
        rows = tables.logged(options.run_dir) if now.updates.any() else []
    else:
        record = settings.record(plan.asked)
    started = time.time() - (time.perf_counter() - plan.begun)
    feed.begin(trackers.described(record, options.run_dir, options.seeds, started), rows)


def _in_processes(asked, algorithm):
    """Whether processes of this machine take part in training."""
    is_async = asked.config.vectorization == "async"
    return is_async or (algorithm.in_processes and asked.options.engine == "local")


def _settled(asked, algorithm):
    """The settings, checked, and adapted to the algorithm."""
    options = asked.options
    if options.engine not in algorithm.engines:
        what = f"{asked.algorithm.upper()} has no workers; of the algorithms A3C has"
        raise ValueError(f"engine = {options.engine!r}: {what}")
    if algorithm.in_processes:
        if options.device == "gpu":
            raise ValueError(f"device = 'gpu': {asked.algorithm.upper()} computes on the CPU")
        options = dataclasses.replace(options, device="cpu")
    config = algorithms.settle(asked.config, asked.own)
    return asked._replace(config=config, options=options.validate().with_log_interval(config))


def _title(plan, updates):
    asked, number = plan.asked, plan.asked.options.num_seeds
    title = " · ".join(map(str, (asked.algorithm.upper(), asked.config.env, *asked.own)))
    title += f" · {number} seed{'s' * (number > 1)}"
    title += ", one after another" * (number > 1 and not plan.together)
    title += f" · {plan.device}"
    done = int(updates.sum()) * asked.config.batch_size
    return title + f" · from {done:,} steps" * bool(done)
