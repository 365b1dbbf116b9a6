"""What the training scripts share: following a run, and what is written of it."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import flags
import numpy as np
from display import Display, print_summary
from flags import RunOptions
from signals import Signals
from start import Progress, Start

from rljax import runs
from rljax.config import Config
from rljax.loggers import tables
from rljax.runs import checkpoints
from rljax.utils import atomic_io, forkserver


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the flags asked for, checked."""

    config: Config
    options: RunOptions
    more: tuple
    """The algorithm's own options."""
    device: str
    seeds: list[int]
    keys: object
    """[S] the keys that the seeds' runs start from."""
    signals: Signals
    begun: float
    """time.perf_counter() when the command began."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run about to begin or to go on."""

    algorithm: str
    config: Config
    options: RunOptions
    run_dir: Path
    seeds: list[int]
    display: Display
    signals: Signals
    evaluate: Callable
    """(states, updates, which seeds) -> `Evaluation` [those seeds, N]."""
    progress: Progress
    begun: float
    """time.perf_counter() when the command began, less the seconds of a run that goes on."""
    active: range
    """Which of the seeds are trained now, together."""
    env_steps_before: int = 0
    """Of the other seeds, all together, where seeds are trained one after another."""
    failures: tuple[type[Exception], ...] = ()
    """What chunks and evaluations may raise: it ends the run, and what was trained is saved."""
    facts: Callable[[object], dict] = lambda states: {}
    """states -> what the algorithm adds to the summary."""


@dataclasses.dataclass
class Outcome:
    """What came of a run so far."""

    states: object
    updates: int
    best: object
    """`evaluate.Best`, if there has been an evaluation during training."""
    saved: int
    """Environment steps of each seed at the last checkpoint."""
    status: str = "completed"
    exit_status: int = 0
    played: object = None
    """The `Evaluation` of just these states, if there was one."""
    diverged: dict[int, int] = dataclasses.field(default_factory=dict)
    """seed: update at which gradient or parameters were no longer finite."""
    error: str | None = None
    """What ended a run that failed."""


def main(
    algorithm: str,
    doc: str,
    argv: list[str],
    prepare: Callable,
    train: Callable,
    options: RunOptions | None = None,
    more: tuple = (),
    settle: Callable = lambda config, options, *more: (config, options, *more),
) -> int:
    """A training script; returns the exit status.

    Args:
        doc: of the script.
        prepare: `Asked` -> a context that gives the `Start`; checks all that can be checked first.
        train: (`Asked`, `Start`) -> the exit status.
        options, more: defaults, as `flags.parse` takes them.
        settle: what flags ask for -> what that comes to, before JAX starts.
    """
    begun = time.perf_counter()

    def run(signals, stack):
        try:
            asked = flags.parse(algorithm, doc.splitlines()[0], argv, options, *more)
            config, run_options, *own = settle(*asked)
            config.validate()
            run_options.validate()
            device = flags.set_device(run_options.device)
            signals.check()
            seeds = list(range(run_options.seed, run_options.seed + run_options.num_seeds))
            keys = seed_keys(seeds)
            asked = Asked(config, run_options, tuple(own), device, seeds, keys, signals, begun)
            start = stack.enter_context(prepare(asked))
        except (ValueError, TypeError) as error:
            return flags.fail(error)
        if start.complete:
            print(f"{start.run_dir} is complete: there is nothing left to do")
            return 0
        return train(asked, start)

    return ended_in_order(run)


def ended_in_order(run: Callable[[Signals, contextlib.ExitStack], int]) -> int:
    """What a script does; returns the exit status, also where a signal, an environment or the disk
    ends it."""
    with Signals() as signals, contextlib.ExitStack() as stack:
        try:
            return run(signals, stack)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return signals.exit_status
        except forkserver.EnvError as error:
            return flags.fail(error)
        except atomic_io.WriteError as error:
            print(f"error: {error}; --resume goes on from what was saved", file=sys.stderr)
            return 1


def begin(algorithm: str, asked: Asked, start: Start, display: Display, **own) -> Run:
    """The run that starts here."""
    options, keys = asked.options, asked.keys

    def play(states, updates, which):
        from rljax import evaluation

        learners, eval_keys = _of_seeds((states.learner, keys), which)
        eval_keys = evaluation.evaluation_keys(eval_keys, updates)
        return evaluation.evaluate(
            asked.config,
            learners,
            eval_keys,
            options.eval_episodes,
            greedy=options.eval_mode == "greedy",
            num_envs=options.eval_envs,
            max_steps=options.eval_max_steps,
            watch=watch,
        )

    def watch(ended, episodes, steps):
        asked.signals.check()
        display.evaluating(ended, episodes, steps)

    return Run(
        algorithm=algorithm,
        config=asked.config,
        options=options,
        run_dir=start.run_dir,
        seeds=asked.seeds,
        display=display,
        signals=asked.signals,
        evaluate=play,
        progress=start.progress,
        begun=asked.begun - start.progress.wall_seconds,
        active=range(len(asked.seeds)),
        **own,
    )


def _of_seeds(tree, which):
    """The part of a pytree [S, ...] that is of some of the seeds."""
    import jax

    return jax.tree.map(lambda x: x[which.start : which.stop], tree)


def follow(run: Run, start: Start, states, chunks, begun: float) -> Outcome:
    """Trains: follows chunks, (states of all seeds, Metrics of the active ones), to the end, or
    until the run diverges, fails or a signal comes; evaluates and saves on the way.

    Args:
        start: `updates` are those of the active seeds.
        states: those that the chunks begin with.
        begun: time.perf_counter() when the making of states and chunks began.

    Raises:
        WriteError: something could not be written.
    """
    outcome = Outcome(states, start.updates, start.best, _env_steps(run, start.updates))
    clock = Clock(run.progress, begun)
    with checkpoints.Saver(run.run_dir, run.options.keep_checkpoints) as saver:
        try:
            _follow(run, chunks, clock, outcome, saver)
        except KeyboardInterrupt:
            outcome.status, outcome.exit_status = "interrupted", run.signals.exit_status
        except run.failures as error:
            outcome.status, outcome.exit_status, outcome.error = "failed", 1, str(error)
            _save(run, outcome, saver)
        saver.wait()
    return outcome


def _env_steps(run, updates):
    """That name a checkpoint: of each seed, or where seeds are trained one after another of all."""
    return run.env_steps_before + updates * run.config.batch_size


def _follow(run, chunks, clock, outcome, saver):
    if outcome.updates == 0:
        _save(run, outcome, saver)
        saver.wait()  # so that a run that has rows has a checkpoint
    elif _evaluate_if_due(run, outcome):  # a signal had put it off
        _save(run, outcome, saver)
    run.signals.check()  # it may have come in an evaluation
    for states, metrics in chunks:
        clock.lap(_take(run, outcome, states, metrics))
        is_row = run.config.ends_row(outcome.updates) and not _is_empty(metrics)
        if is_row:
            _end_row(run, outcome, metrics, clock, saver)
        elif run.signals.received:
            if not outcome.diverged:
                _save(run, outcome, saver)  # before the row, for it goes with whole rows alone
            append_rows(run, metrics, clock.speed)
        env_steps = outcome.updates * run.config.batch_size * len(run.active)
        env_steps += run.env_steps_before
        mean_return = run.progress.last_return
        run.display.update(
            env_steps,
            clock.speed,
            "" if mean_return is None else f"return {mean_return:,.2f}",
        )
        if is_row and outcome.diverged:
            outcome.status, outcome.exit_status = "diverged", 1
            return
        saver.check()
        run.signals.check()
    if outcome.diverged:  # between two rows, where environments could not go on
        outcome.status, outcome.exit_status = "diverged", 1


def _end_row(run, outcome, metrics, clock, saver):
    (run.run_dir / "summary.json").unlink(missing_ok=True)  # of a run that now goes on
    append_rows(run, metrics, clock.speed)
    clock.begin_row()
    if outcome.diverged:  # the checkpoint before stays the newest
        return
    if not run.signals.received and _evaluate_if_due(run, outcome):
        clock.pause()
    if run.signals.received or _is_save_due(run, outcome):
        _save(run, outcome, saver)


class Clock:
    """Seconds and speed of training, into a `Progress`."""

    def __init__(self, progress: Progress, begun: float):
        self.progress, self.last = progress, begun
        self.origin = begun - progress.wall_seconds
        self.speed, self.compiled = 0.0, False
        self.begin_row()

    def lap(self, steps: int) -> None:
        """After a chunk of so many environment steps; the first one that has any is left to the
        compilation."""
        now = time.perf_counter()
        seconds, self.last = now - self.last, now
        self.progress.wall_seconds = now - self.origin
        if not self.compiled:
            self.progress.compile_seconds += seconds
            self.speed, self.compiled = steps / seconds, steps > 0
            return
        self.steps, self.seconds = self.steps + steps, self.seconds + seconds
        self.speed = self.steps / self.seconds
        self.progress.train_steps += steps
        self.progress.train_seconds += seconds

    def begin_row(self) -> None:
        self.steps, self.seconds = 0, 0.0

    def pause(self) -> None:
        """What was done since the lap is no training."""
        self.last = time.perf_counter()


def _take(run, outcome, states, metrics):
    """Takes over a chunk's results; the environment steps in it, over all seeds."""
    updates = int(metrics.updates[0])
    steps = (updates - outcome.updates) * run.config.batch_size * len(run.active)
    outcome.states, outcome.updates, outcome.played = states, updates, None
    ended = metrics.episodes > 0
    if ended.any():
        run.progress.last_return = float(metrics.episodic_return[ended].mean())
    seeds = _active_seeds(run)
    outcome.diverged = {seed: int(at) for seed, at in zip(seeds, metrics.diverged_at) if at}
    return steps


def _evaluate_if_due(run, outcome):
    """Evaluates at the first row after every so many steps, and after the last one; whether it
    did. A signal puts it off to the next start."""
    from rljax import evaluation

    every, progress = run.options.eval_every, run.progress
    env_steps = outcome.updates * run.config.batch_size
    at_end = outcome.updates == run.config.num_updates
    due = _passed(every, progress.evaluated, env_steps) or (every and at_end)
    if not due or env_steps == progress.evaluated or not run.config.ends_row(outcome.updates):
        return False
    try:
        played = run.evaluate(outcome.states, outcome.updates, run.active)
    except KeyboardInterrupt:
        if run.signals.received:
            return False
        raise
    returns, seeds = played.returns, _active_seeds(run)
    tables.append_evaluations(run.run_dir, seeds, env_steps, outcome.updates, returns)
    outcome.played = played if len(seeds) == len(run.seeds) else None
    at = run.active.start
    outcome.best = evaluation.best(
        outcome.best, outcome.states.learner, returns.mean(axis=1), env_steps, at
    )
    progress.evaluated = env_steps
    return True


def _is_save_due(run, outcome):
    config = run.config
    every = run.options.checkpoint_every
    if every is None:
        every = config.total_timesteps // 10
    at_end = outcome.updates == config.num_updates
    return at_end or _passed(every, outcome.saved, _env_steps(run, outcome.updates))


def _passed(every, before, now):
    """Whether a multiple of `every` was passed since; 0 is never."""
    return every > 0 and now // every > before // every


def _save(run, outcome, saver):
    """A checkpoint, of the tables as they are now."""
    trees = {"state": outcome.states}
    facts = {
        "algorithm": run.algorithm,
        "config": runs.config_record(run.config),
        "seeds": run.seeds,
        "env_steps": _env_steps(run, outcome.updates),
        "updates": outcome.updates,
        "progress": dataclasses.asdict(run.progress),
        "tables": tables.mark(run.run_dir),
    }
    if outcome.best:
        trees["best"] = {"learner": outcome.best.learner}
        facts["best"] = {
            "env_steps": outcome.best.env_steps.tolist(),
            "returns": outcome.best.returns.tolist(),
        }
    saver.save(facts["env_steps"], trees, facts)
    outcome.saved = facts["env_steps"]


def finish(run: Run, outcome: Outcome) -> int:
    """Evaluates, writes the learning curve and the summary, prints the ending table; returns the
    exit status.

    Raises:
        WriteError: something could not be written.
    """
    from rljax import analysis

    config, run_dir, progress = run.config, run.run_dir, run.progress
    final_return, warning = None, _no_episode_ended(run, outcome)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    if outcome.status == "completed" and run.options.eval_episodes:
        run.display.phase("evaluating")
        try:
            run.signals.check()
            run.signals.deferred = False
            everyone = range(len(run.seeds))
            played = outcome.played or run.evaluate(outcome.states, outcome.updates, everyone)
            mode, max_steps = run.options.eval_mode, run.options.eval_max_steps
            final_return = summarize_returns(played, mode, max_steps)
        except KeyboardInterrupt:
            outcome.status, outcome.exit_status = "interrupted", run.signals.exit_status
        except run.failures as error:
            outcome.status, outcome.exit_status, outcome.error = "failed", 1, str(error)
        run.signals.deferred = True
    run.display.stop()
    speed = progress.train_steps / progress.train_seconds if progress.train_seconds else 0.0
    summary = {
        "algorithm": run.algorithm,
        "env": config.env,
        "seeds": run.seeds,
        "total_timesteps": config.total_timesteps,
        "env_steps": outcome.updates * config.batch_size,
        "updates": outcome.updates,
        "final_return": final_return,
        "last_return": progress.last_return,
        "steps_per_second": speed,
        "compile_seconds": progress.compile_seconds,
        "wall_seconds": time.perf_counter() - run.begun,
        "status": outcome.status,
        **run.facts(outcome.states),
    }
    if config.num_updates * config.batch_size != config.total_timesteps:
        summary["note"] = (
            f"total_timesteps = {config.total_timesteps:,} is rounded up to"
            f" {config.num_updates * config.batch_size:,}: whole rollouts of {config.batch_size:,}"
        )
    if warning:
        summary["warning"] = warning
    if outcome.diverged:
        summary["diverged"] = outcome.diverged
    title = f"{run.algorithm.upper()} on {config.env}"
    curves = {"": tables.read_metrics(run_dir)}
    analysis.plot_learning_curves(curves, title, run_dir / "learning_curve.png")
    atomic_io.write_json(run_dir / "summary.json", summary)  # last: then all is there
    print_summary(run.display.console, summary, run_dir)
    for seed, update in outcome.diverged.items():
        message = (
            f"error: seed {seed} diverged: gradient or parameters not finite at update {update}"
        )
        print(message, file=sys.stderr)
    if outcome.error:
        print(f"error: {outcome.error}", file=sys.stderr)
    return outcome.exit_status


def _no_episode_ended(run, outcome):
    """A warning, if that is so at the end of a run."""
    if outcome.status != "completed" or run.progress.last_return is not None:
        return None
    steps = outcome.updates * run.config.num_steps
    return (
        f"no episode ended in training, in {steps:,} steps of each environment: there are no"
        " returns; evaluations cut episodes after"
        f" --eval-max-steps {run.options.eval_max_steps:,}"
    )


def seed_keys(seeds: Iterable[int]):
    """[S] the keys that runs of these seeds start from."""
    import jax

    return jax.vmap(jax.random.key)(np.array(list(seeds), np.uint32))


def append_rows(run: Run, metrics, speed: float) -> None:
    """Adds a row for each active seed to metrics.csv, from metrics [those seeds].

    `steps_per_second` is each seed's own share: the sum over seeds is the speed of the run.
    """
    if _is_empty(metrics):
        return
    tables.append_metrics(run.run_dir, _rows(run, metrics, speed))


def _is_empty(metrics):
    """A3C: no gradient has come since the last row."""
    return bool(np.isnan(metrics.learning_rate).any())


def _rows(run, metrics, speed):
    for i, seed in enumerate(_active_seeds(run)):
        row = {name: str(x[i]) for name, x in metrics._asdict().items() if x is not None}
        del row["diverged_at"]
        if metrics.episodes[i] == 0:
            row["episodic_return"] = row["episodic_length"] = ""
        yield {
            **row,
            "seed": seed,
            "env_steps": int(metrics.updates[i]) * run.config.batch_size,
            "episodes": int(metrics.episodes[i]),
            "wall_seconds": f"{run.progress.wall_seconds:.3f}",
            "steps_per_second": f"{speed / len(run.active):.0f}",
        }


def _active_seeds(run):
    return [run.seeds[i] for i in run.active]


def summarize_returns(played, mode: str, max_steps: int) -> dict:
    """`final_return` from an `Evaluation` [S, N]: statistics over the seeds' means."""
    from rljax import analysis

    per_seed = played.returns.astype(float).mean(axis=1)
    ends = [float(x) for x in analysis.interval(per_seed)]
    return {
        "mean": float(per_seed.mean()),
        "iqm": float(analysis.iqm(per_seed)),
        "ci95": ends if len(per_seed) > 1 else None,
        "per_seed": [float(x) for x in per_seed],
        "mode": mode,
        "episodes": played.returns.shape[1],
        "unfinished": int((~played.finished).sum()),
        "max_steps": max_steps,
    }
