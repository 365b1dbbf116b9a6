"""What the training scripts share: flags, device, signals, the run and what is written of it."""

import ast
import contextlib
import dataclasses
import io
import itertools
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

import tyro
from display import Display, print_summary

from rljax.config import Config, KeyValues, preset, unknown

sys.path.append(os.getcwd())  # where a user's own package.module:attribute is found

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""The exit status for each signal that ends a run in order."""


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Options of this run; they change nothing of what is learned from a seed."""

    preset: str | None = None
    """Settings to start from: an environment id, or 'none'. By default those of --env."""
    seed: int = 0
    """The first seed."""
    num_seeds: int = 8
    """Seeds trained at once: --seed and the following ones."""
    run_dir: Path | None = None
    """Where the run is written. By default runs/{env}__{algorithm}__{seed}__{time}."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""
    eval_episodes: int = 100
    """Full episodes per seed in an evaluation; 0 turns the final one off."""
    eval_mode: Literal["greedy", "sampled"] = "greedy"
    """Whether evaluations take the policy's mode or sample from it."""
    eval_every: int = 0
    """Also evaluate during training, about every so many environment steps; 0 never."""
    quiet: bool = False
    """Print nothing but errors."""

    def validate(self):
        for name, least in (("seed", 0), ("num_seeds", 1), ("eval_episodes", 0), ("eval_every", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least {least}")
        if self.seed + self.num_seeds > 2**32:
            raise ValueError(f"seed = {self.seed}: the last seed must be below 2**32")
        if self.eval_every and not self.eval_episodes:
            raise ValueError("eval_episodes = 0: must be at least 1 with eval_every")


def parse(algorithm: str, description: str, argv: list[str]) -> tuple[Config, RunOptions]:
    """The settings and options that the flags ask for, on top of the preset.

    Raises:
        SystemExit: with 0 after --help.
        ValueError: a flag, its value or the preset is unknown; in one line.
    """
    first = dict(re.findall(r"--(env|preset)[= ](\S+)", " ".join(argv)))
    env = first.get("env", first.get("preset", "CartPole-v1"))
    name = first.get("preset", env)
    try:
        start = preset(algorithm, name.removeprefix("gymnax/"))
    except ValueError:
        if "preset" in first and name != "none":
            raise
        start = Config()
    start = dataclasses.replace(start, env=Config().env if env == "none" else env)

    @dataclasses.dataclass(frozen=True)
    class Flags:
        config: Annotated[Config, tyro.conf.arg(name="")]
        options: Annotated[RunOptions, tyro.conf.arg(name="")]

    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            flags = tyro.cli(
                Flags,
                args=argv,
                default=Flags(start, RunOptions()),
                description=description,
                registry=_registry(),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(_one_line(errors.getvalue())) from None
    return flags.config, flags.options


def _registry():
    """Teaches tyro name=value pairs."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def key_values(type_info: tyro.constructors.PrimitiveTypeInfo):
        if type_info.type != KeyValues:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs="*",
            metavar="[NAME=VALUE ...]",
            instance_from_str=lambda texts: tuple(_name_and_value(text) for text in texts),
            is_instance=lambda value: isinstance(value, tuple),
            str_from_instance=lambda pairs: [f"{name}={value}" for name, value in pairs],
        )

    return registry


def _name_and_value(text):
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not of the form name=value")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _one_line(box):
    """The message out of the box that tyro draws around an error: between its first two rules."""
    parts = re.split(r"(?m)^.*[─-]{8,}.*$", box)
    message = " ".join(parts[1].replace("│", " ").split())
    wrong = re.search(r"Unrecognized options: --([\w-]+)", message)
    if wrong:
        names = [f.name for f in (*dataclasses.fields(Config), *dataclasses.fields(RunOptions))]
        flags = [f"--{name.replace('_', '-')}" for name in names]
        return unknown("flag", f"--{wrong[1]}", flags).split(": known")[0]
    return message


def set_device(device: str) -> str:
    """Chooses where JAX computes; must run before JAX starts.

    Returns:
        The device's name.

    Raises:
        ValueError: there is no such device.
    """
    if device == "cpu" or not metadata.entry_points(group="jax_plugins"):
        # XLA's heavier optimisations take most of its compile time on a CPU and gain these small
        # programs nothing.
        level = "--xla_backend_optimization_level=1"
        os.environ["XLA_FLAGS"] = f"{level} {os.environ.get('XLA_FLAGS', '')}".strip()
    import jax

    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    try:
        found = jax.devices(None if device == "auto" else device)[0]
    except RuntimeError:
        raise ValueError(
            f"device = {device!r}: there is none here; 'cpu' is always there"
        ) from None
    return found.device_kind if found.platform != "cpu" else "cpu"


def fail(error: Exception) -> int:
    """Prints what is wrong in one line; the exit status for bad input."""
    print(f"error: {error}", file=sys.stderr)
    return 2


class Signals:
    """Ctrl-C and SIGTERM. The first one is only noted in `received`, to be looked at where the
    run can stop in order: an interrupt in the middle of an import or a compilation can be
    swallowed there, or crash XLA. While not `deferred`, and the second time, they interrupt at
    once."""

    def __enter__(self):
        self.received = None
        self.deferred = True
        self.before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *exception):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number, frame):
        again = self.received is not None
        self.received = number
        if again or not self.deferred:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raises KeyboardInterrupt if a signal has come."""
        if self.received:
            raise KeyboardInterrupt

    @property
    def exit_status(self) -> int:
        return SIGNALS[self.received or signal.SIGINT]


def default_run_dir(config: Config, algorithm: str, seed: int) -> Path:
    env = re.sub(r"[^\w.-]+", "_", config.env)
    path = Path("runs") / f"{env}__{algorithm}__{seed}__{time.strftime('%Y%m%d-%H%M%S')}"
    again = (path.with_name(f"{path.name}-{i}") for i in itertools.count(2))
    return path if not path.exists() else next(p for p in again if not p.exists())


def config_record(algorithm: str, config: Config, options: RunOptions, device: str) -> dict:
    """What config.json holds."""
    from rljax import runs

    return {
        "algorithm": algorithm,
        "config": {
            **dataclasses.asdict(config),
            "env_kwargs": dict(config.env_kwargs),
            "env_params": dict(config.env_params),
        },
        "run": {**dataclasses.asdict(options), "run_dir": str(options.run_dir)},
        "versions": {"python": sys.version.split()[0], **runs.versions()},
        "git_commit": runs.git_commit(),
        "device": device,
        "command_line": shlex.join(sys.orig_argv),
    }


@dataclasses.dataclass(frozen=True)
class Run:
    """A run about to begin."""

    algorithm: str
    config: Config
    options: RunOptions
    run_dir: Path
    seeds: list[int]
    display: Display
    signals: "Signals"
    evaluate: Callable
    """(state, updates) -> `Evaluation` [S, N]."""
    begun: float
    """time.perf_counter() when the command began."""


@dataclasses.dataclass
class Outcome:
    """What came of a run."""

    status: str = "completed"
    exit_status: int = 0
    state: object = None
    updates: int = 0
    compile_seconds: float = 0.0
    seconds: float = 0.0
    """Training alone, compilation and evaluations excluded."""
    steps: int = 0
    """Environment steps taken in these seconds, over all seeds."""
    last_return: float | None = None
    """Mean return over seeds in training, at the last row that has one."""
    final_return: dict | None = None
    diverged: dict[int, int] = dataclasses.field(default_factory=dict)
    """seed: update at which gradient or parameters were no longer finite."""


def follow(run: Run, chunks) -> Outcome:
    """Trains: follows chunks, (state, Metrics [S]), to the end, or until the run diverges or a
    signal comes."""
    outcome = Outcome()
    try:
        _follow(run, chunks, outcome)
    except KeyboardInterrupt:
        outcome.status, outcome.exit_status = "interrupted", run.signals.exit_status
    return outcome


def _follow(run, chunks, outcome):
    from rljax import a2c, runs

    config, seeds, signals = run.config, run.seeds, run.signals
    row_steps, row_seconds = 0, 0.0
    next_evaluation = run.options.eval_every or float("inf")
    start = last = time.perf_counter()
    for state, metrics in chunks:
        updates = int(metrics.updates[0])
        steps = (updates - outcome.updates) * config.batch_size * len(seeds)
        seconds, last = time.perf_counter() - last, time.perf_counter()
        if outcome.state is None:  # the first chunk: one update, and the compilation
            outcome.compile_seconds = seconds
        else:
            row_steps, row_seconds = row_steps + steps, row_seconds + seconds
            outcome.steps, outcome.seconds = outcome.steps + steps, outcome.seconds + seconds
        outcome.state, outcome.updates = state, updates
        outcome.diverged = {seed: int(at) for seed, at in zip(seeds, metrics.diverged_at) if at > 0}

        speed = row_steps / row_seconds if row_seconds else steps / seconds
        is_row = a2c.is_row(config, metrics)
        if is_row or outcome.diverged or signals.received:
            rows = metrics_rows(metrics, config, seeds, last - start, speed)
            runs.append_metrics(run.run_dir, rows)
            row_steps, row_seconds = 0, 0.0
            if metrics.episodes.any():
                ended = metrics.episodes > 0
                outcome.last_return = float(metrics.episodic_return[ended].mean())
        env_steps = updates * config.batch_size
        run.display.update(env_steps * len(seeds), speed, outcome.last_return)

        if outcome.diverged:
            outcome.status, outcome.exit_status = "diverged", 1
            return
        signals.check()
        if is_row and env_steps >= next_evaluation:
            next_evaluation = (env_steps // run.options.eval_every + 1) * run.options.eval_every
            returns = run.evaluate(state, updates).returns
            runs.append_evaluations(run.run_dir, seeds, env_steps, updates, returns)
            last = time.perf_counter()


def finish(run: Run, outcome: Outcome) -> int:
    """Saves the state, evaluates, writes the learning curve and the summary, prints the ending
    table; returns the exit status."""
    from rljax import analysis, runs

    config, run_dir = run.config, run.run_dir
    env_steps = outcome.updates * config.batch_size
    if outcome.state is not None:
        runs.save_state(run_dir / "checkpoints" / f"{env_steps:012d}.npz", outcome.state)
    if outcome.status == "completed" and run.options.eval_episodes:
        run.display.phase("evaluating")
        try:
            run.signals.check()
            run.signals.deferred = False
            played = run.evaluate(outcome.state, outcome.updates)
            outcome.final_return = summarize_returns(played, run.options.eval_mode)
        except KeyboardInterrupt:
            outcome.status, outcome.exit_status = "interrupted", run.signals.exit_status
        run.signals.deferred = True
    run.display.stop()
    summary = {
        "algorithm": run.algorithm,
        "env": config.env,
        "seeds": run.seeds,
        "total_timesteps": config.total_timesteps,
        "env_steps": env_steps,
        "updates": outcome.updates,
        "final_return": outcome.final_return,
        "last_return": outcome.last_return,
        "steps_per_second": outcome.steps / outcome.seconds if outcome.seconds else 0.0,
        "compile_seconds": outcome.compile_seconds,
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
    runs.write_json(run_dir / "summary.json", summary)
    title = f"{run.algorithm.upper()} on {config.env}"
    curve = run_dir / "learning_curve.png"
    analysis.plot_learning_curve(runs.read_metrics(run_dir), title, curve)
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
