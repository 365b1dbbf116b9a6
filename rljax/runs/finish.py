"""The end of a run: the final evaluation, the summary and the learning curve."""

import time
import warnings
from typing import Any

import numpy as np

from rljax.loggers.summaries import print_summary
from rljax.runs import checkpoints, loop
from rljax.runs.run import Run, returns_summary
from rljax.utils import atomic_io
from rljax.utils.errors import TrainingError


def finish(plan: Any, now: Any) -> Run:
    """Ends a run (`loop.Plan`, `start.Training`): evaluates, writes the summary and the learning
    curve, and shows the table; raises WriteError if it cannot write."""
    final_return, warning = None, _no_episode_ended(plan, now)
    if warning:
        warnings.warn(warning, stacklevel=2)
    if now.status in ("completed", "stopped") and plan.asked.options.eval_episodes:
        final_return = _final_return(plan, now)
    plan.display.stop()
    summary = _summary(plan, now, final_return, warning)
    run = _run(plan, now, summary)
    if run.run_dir:
        run.plot(run.run_dir / "learning_curve.png")
        atomic_io.write_json(run.run_dir / "summary.json", summary)  # last: then all is there
    if seconds := plan.recorder.feed.end(summary):
        summary["logger_seconds"] = seconds
        if run.run_dir:
            atomic_io.write_json(run.run_dir / "summary.json", summary)
    plan.display.result(summary, lambda console: print_summary(console, summary, run.run_dir))
    return run


def _final_return(plan, now):
    """None if a signal or an environment ends the evaluation."""
    options = plan.asked.options
    plan.display.phase("evaluating")
    try:
        plan.interrupts.check()
        plan.interrupts.deferred = False
        result = now.evaluation or loop.evaluate(plan, now, np.arange(len(now.updates)))
        how = options.eval_mode, options.eval_max_steps, plan.asked.config.log_info
        return returns_summary(result, *how)
    except KeyboardInterrupt:
        now.status = "interrupted"
    except TrainingError as error:
        now.status, now.error = "failed", error
    finally:
        plan.interrupts.deferred = True
    return None


def _summary(plan, now, final_return, warning):
    config, progress, updates = plan.asked.config, now.progress, int(now.updates.max())
    speed = progress.train_steps / progress.train_seconds if progress.train_seconds else 0.0
    own = getattr(plan.module, "summary", lambda states: {})
    summary = {
        "algorithm": plan.asked.algorithm,
        "env": config.env,
        "seeds": plan.asked.options.seeds,
        "total_timesteps": config.total_timesteps,
        "env_steps": updates * config.batch_size,
        "updates": updates,
        "final_return": final_return,
        "last_return": progress.last_return,
        "steps_per_second": speed,
        "compile_seconds": progress.compile_seconds,
        "wall_seconds": time.perf_counter() - plan.begun,
        "status": now.status,
        **own(now.states),
    }
    total, steps = config.total_timesteps, config.num_updates * config.batch_size
    rounded = f"total_timesteps = {total:,} is rounded up to {steps:,}"
    optional = {
        "last_info": progress.last_info,
        "note": f"{rounded}: whole rollouts of {config.batch_size:,}" if steps != total else None,
        "diverged": now.diverged,
        "error": now.error and str(now.error),
        "warning": warning,
    }
    return summary | {name: x for name, x in optional.items() if x}


def _run(plan, now, summary):
    asked = plan.asked
    statuses = {"interrupted": plan.interrupts.exit_status, "diverged": 1, "failed": 1}
    return Run(
        algorithm=asked.algorithm,
        config=asked.config,
        seeds=asked.options.seeds,
        metrics=plan.recorder.metrics(),
        summary=summary,
        state=now.states and checkpoints.nest(checkpoints.flatten(now.states)),
        env_steps=(now.updates * asked.config.batch_size).tolist(),
        run_dir=asked.options.run_dir,
        error=now.error,
        exit_status=statuses.get(now.status, 0),
    )


def _no_episode_ended(plan, now):
    """The warning at the end of a run without returns, or None."""
    if now.status != "completed" or now.progress.last_return is not None:
        return None
    options, config = plan.asked.options, plan.asked.config
    return (
        f"no episode ended in training, in {int(now.updates.max()) * config.num_steps:,} steps of"
        " each environment: there are no returns; evaluations cut episodes after"
        f" --eval-max-steps {options.eval_max_steps:,}"
    )
