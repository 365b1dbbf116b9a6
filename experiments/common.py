"""What the training scripts share: following a run, and what is written of it."""

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path

from display import Display, print_summary
from flags import RunOptions
from signals import Signals
from start import Progress, Start

from rljax import checkpoints, files, runs, tables
from rljax.config import Config


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
    """(states, updates) -> `Evaluation` [S, N]."""
    begun: float
    """time.perf_counter() when the command began, less the seconds of a run that goes on."""


@dataclasses.dataclass
class Outcome:
    """What came of a run so far."""

    states: object
    updates: int
    best: object
    """`evaluate.Best`, if there has been an evaluation during training."""
    progress: Progress
    saved: int
    """Environment steps of each seed at the last checkpoint."""
    status: str = "completed"
    exit_status: int = 0
    played: object = None
    """The `Evaluation` of just these states, if there was one."""
    diverged: dict[int, int] = dataclasses.field(default_factory=dict)
    """seed: update at which gradient or parameters were no longer finite."""


def follow(run: Run, start: Start, states, chunks, clock: float) -> Outcome:
    """Trains: follows chunks, (states, Metrics [S]), to the end, or until the run diverges or a
    signal comes; evaluates and saves on the way.

    Args:
        states: those that the chunks begin with.
        clock: time.perf_counter() when the making of states and chunks began.

    Raises:
        WriteError: something could not be written.
    """
    saved = start.updates * run.config.batch_size
    outcome = Outcome(states, start.updates, start.best, start.progress, saved)
    with checkpoints.Saver(run.run_dir, run.options.keep_checkpoints) as saver:
        try:
            _follow(run, chunks, clock, outcome, saver)
        except KeyboardInterrupt:
            outcome.status, outcome.exit_status = "interrupted", run.signals.exit_status
        saver.wait()
    return outcome


def _follow(run, chunks, clock, outcome, saver):
    from rljax import a2c

    config, signals, progress = run.config, run.signals, outcome.progress
    origin, last = clock - progress.wall_seconds, clock
    row_steps, row_seconds, compiled = 0, 0.0, False
    if outcome.updates == 0 or _evaluate_if_due(run, outcome):  # a signal may have put it off
        _save(run, outcome, saver)
    for states, metrics in chunks:
        seconds, last = time.perf_counter() - last, time.perf_counter()
        steps = _take(run, outcome, states, metrics)
        if compiled:
            row_steps, row_seconds = row_steps + steps, row_seconds + seconds
            progress.train_steps += steps
            progress.train_seconds += seconds
        else:  # the first chunk: one update, and the compilation
            progress.compile_seconds += seconds
            compiled = True
        speed = row_steps / row_seconds if row_seconds else steps / seconds
        progress.wall_seconds = last - origin

        is_row = a2c.is_row(config, metrics)
        stops = outcome.diverged or signals.received
        rows = list(metrics_rows(metrics, config, run.seeds, progress.wall_seconds, speed))
        if is_row:
            tables.append_metrics(run.run_dir, rows)
            row_steps, row_seconds = 0, 0.0
            if not stops and _evaluate_if_due(run, outcome):
                last = time.perf_counter()
        if stops or (is_row and _is_save_due(run, outcome)):
            _save(run, outcome, saver)
        if stops and not is_row:  # after the checkpoint, which goes with whole rows alone
            tables.append_metrics(run.run_dir, rows)
        env_steps = outcome.updates * config.batch_size
        run.display.update(env_steps * len(run.seeds), speed, progress.last_return)
        if outcome.diverged:
            outcome.status, outcome.exit_status = "diverged", 1
            return
        saver.check()
        signals.check()


def _take(run, outcome, states, metrics):
    """Takes over a chunk's results; the environment steps in it, over all seeds."""
    updates = int(metrics.updates[0])
    steps = (updates - outcome.updates) * run.config.batch_size * len(run.seeds)
    outcome.states, outcome.updates, outcome.played = states, updates, None
    ended = metrics.episodes > 0
    if ended.any():
        outcome.progress.last_return = float(metrics.episodic_return[ended].mean())
    outcome.diverged = {seed: int(at) for seed, at in zip(run.seeds, metrics.diverged_at) if at}
    return steps


def _evaluate_if_due(run, outcome):
    """Evaluates at the first row after every so many steps, and after the last one; whether it
    did."""
    from rljax import evaluate

    every, progress = run.options.eval_every, outcome.progress
    env_steps = outcome.updates * run.config.batch_size
    at_end = outcome.updates == run.config.num_updates
    due = _passed(every, progress.evaluated, env_steps) or (every and at_end)
    if not due or env_steps == progress.evaluated or not run.config.ends_row(outcome.updates):
        return False
    outcome.played = run.evaluate(outcome.states, outcome.updates)
    returns = outcome.played.returns
    tables.append_evaluations(run.run_dir, run.seeds, env_steps, outcome.updates, returns)
    learners = outcome.states.learner
    outcome.best = evaluate.best(outcome.best, learners, returns.mean(axis=1), env_steps)
    progress.evaluated = env_steps
    return True


def _is_save_due(run, outcome):
    config = run.config
    every = run.options.checkpoint_every
    if every is None:
        every = config.total_timesteps // 10
    at_end = outcome.updates == config.num_updates
    return at_end or _passed(every, outcome.saved, outcome.updates * config.batch_size)


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
        "env_steps": outcome.updates * run.config.batch_size,
        "updates": outcome.updates,
        "progress": dataclasses.asdict(outcome.progress),
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

    config, run_dir, progress = run.config, run.run_dir, outcome.progress
    final_return = None
    if outcome.status == "completed" and run.options.eval_episodes:
        run.display.phase("evaluating")
        try:
            run.signals.check()
            run.signals.deferred = False
            played = outcome.played or run.evaluate(outcome.states, outcome.updates)
            final_return = summarize_returns(played, run.options.eval_mode)
        except KeyboardInterrupt:
            outcome.status, outcome.exit_status = "interrupted", run.signals.exit_status
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
    }
    if config.num_updates * config.batch_size != config.total_timesteps:
        summary["note"] = (
            f"total_timesteps = {config.total_timesteps:,} is rounded up to"
            f" {config.num_updates * config.batch_size:,}: whole rollouts of {config.batch_size:,}"
        )
    if outcome.diverged:
        summary["diverged"] = outcome.diverged
    files.write_json(run_dir / "summary.json", summary)
    title = f"{run.algorithm.upper()} on {config.env}"
    curves = {"": tables.read_metrics(run_dir)}
    analysis.plot_learning_curves(curves, title, run_dir / "learning_curve.png")
    print_summary(run.display.console, summary, run_dir)
    for seed, update in outcome.diverged.items():
        message = (
            f"error: seed {seed} diverged: gradient or parameters not finite at update {update}"
        )
        print(message, file=sys.stderr)
    return outcome.exit_status


def metrics_rows(metrics, config: Config, seeds: list[int], wall: float, speed: float):
    """Rows of metrics.csv, one per seed, from metrics [S].

    `steps_per_second` is each seed's own share: the sum over seeds is the speed of the run.
    """
    for i, seed in enumerate(seeds):
        row = {name: str(x[i]) for name, x in metrics._asdict().items()}
        del row["diverged_at"]
        if metrics.episodes[i] == 0:
            row["episodic_return"] = row["episodic_length"] = ""
        yield {
            **row,
            "seed": seed,
            "env_steps": int(metrics.updates[i]) * config.batch_size,
            "episodes": int(metrics.episodes[i]),
            "wall_seconds": f"{wall:.3f}",
            "steps_per_second": f"{speed / len(seeds):.0f}",
        }


def summarize_returns(played, mode: str) -> dict:
    """`final_return` from an `Evaluation` [S, N]: statistics over the seeds' means."""
    from rljax import analysis

    per_seed = played.returns.astype(float).mean(axis=1)
    low, high = analysis.interval(per_seed)
    return {
        "mean": float(per_seed.mean()),
        "iqm": float(analysis.iqm(per_seed)),
        "ci95": [float(low), float(high)],
        "per_seed": [float(x) for x in per_seed],
        "mode": mode,
        "episodes": played.returns.shape[1],
        "unfinished": int((~played.finished).sum()),
    }
