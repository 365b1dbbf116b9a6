"""What the scripts are told: flags on top of presets or of a saved run, and the device."""

import ast
import contextlib
import dataclasses
import io
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from rljax import runs
from rljax.config import MAX_EPISODE_STEPS, Config, KeyValues, differing, unknown
from rljax.presets import base, preset
from rljax.utils import atomic_io, forkserver

sys.path.append(os.getcwd())  # where a user's own package.module:attribute is found

RESULTS = (
    *("preset", "seed", "num_seeds"),
    *("eval_episodes", "eval_mode", "eval_every", "eval_envs", "eval_max_steps"),
)
"""The options that change what a run's files hold: they stay as they are on resume."""

DEVICES = ("auto", "cpu", "gpu")
EVAL_MODES = ("greedy", "sampled")
CPU_FLAGS = (
    # XLA's heavier optimisations take most of its compile time on a CPU and gain these small
    # programs nothing.
    "--xla_backend_optimization_level=1",
    # Loops over little data, such as those that draw random numbers, are compiled as one piece
    # instead of being interpreted operation by operation.
    "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=131072",
)
"""For XLA on a CPU, where the user's own XLA_FLAGS do not say otherwise."""


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Options of this run; they change nothing of what is learned from a seed."""

    preset: str | None = None
    """Settings to start from: an environment id, or 'none'. By default those of --env."""
    seed: int = 0
    """The first seed."""
    num_seeds: int = 8
    """Seeds: --seed and the following ones. A2C trains them at once if environments are in JAX;
    else, and in A3C, they are trained one after another."""
    run_dir: Path | None = None
    """Where the run is written. By default runs/{env}__{algorithm}__{seed}__{time}."""
    device: Literal[DEVICES] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""
    eval_episodes: int = 100
    """Full episodes per seed in an evaluation; 0 turns the final one off."""
    eval_mode: Literal[EVAL_MODES] = "greedy"
    """Whether evaluations take the policy's mode or sample from it."""
    eval_every: int = 0
    """Also evaluate during training, about every so many environment steps; 0 never."""
    eval_envs: int | None = None
    """Environments that Python steps, in which an evaluation plays at once, beside those of
    training; by default --num-envs, at most 16."""
    eval_max_steps: int = MAX_EPISODE_STEPS
    """An evaluation's episode that has not ended by itself after so many steps is cut."""
    checkpoint_every: int | None = None
    """Save everything about every so many environment steps of a seed, at a row of metrics; 0 only
    at the end. By default ten times in a run."""
    keep_checkpoints: int = 3
    """The newest checkpoints that are kept."""
    resume: Path | None = None
    """Go on with the run in this directory, from its newest whole checkpoint, with its settings;
    --total-timesteps may be raised."""
    quiet: bool = False
    """Print nothing but errors and warnings."""

    def validate(self) -> "RunOptions":
        """Checks what flags, or the config.json of a run, ask for.

        Raises:
            ValueError, TypeError: an option is out of its range or of another type.
        """
        from_one = ("num_seeds", "keep_checkpoints", "eval_envs", "eval_max_steps")
        from_zero = ("seed", "eval_episodes", "eval_every", "checkpoint_every")
        check_shared(self, from_one, from_zero, {"eval_mode": EVAL_MODES, "device": DEVICES})
        if self.eval_every and not self.eval_episodes:
            raise ValueError("eval_episodes = 0: must be at least 1 with eval_every")
        return self


def check_shared(
    options: Any,
    from_one: Sequence[str],
    from_zero: Sequence[str],
    choices: Mapping[str, Sequence[str]],
) -> None:
    """Checks what the options of training and of sweeps share.

    Args:
        from_one, from_zero: names of whole numbers, by the least; None is allowed where it is the
            default.
        choices: what is allowed of others.

    Raises:
        ValueError, TypeError: an option is out of its range or of another type.
    """
    for name in (*from_one, *from_zero):
        value, least = getattr(options, name), int(name in from_one)
        if value is None and getattr(type(options), name) is None:
            continue
        if type(value) is not int:
            raise TypeError(f"{name} = {value!r}: must be a whole number")
        if value < least:
            raise ValueError(f"{name} = {value}: must be at least {least}")
    if options.eval_max_steps >= 2**31:
        raise ValueError(f"eval_max_steps = {options.eval_max_steps}: must be below 2**31")
    for name, allowed in choices.items():
        if getattr(options, name) not in allowed:
            raise ValueError(unknown(name, str(getattr(options, name)), list(allowed)))
    if not isinstance(options.preset, str | None):
        raise TypeError(f"preset = {options.preset!r}: must be a name")
    if options.seed + options.num_seeds > 2**32:
        raise ValueError(f"seed = {options.seed}: the last seed must be below 2**32")


def parse(
    algorithm: str, description: str, argv: list[str], options: RunOptions | None = None, *more: Any
) -> tuple[Config, RunOptions, *tuple[Any, ...]]:
    """The settings and options that the flags ask for, on top of the preset, or of the saved run
    that is to be resumed.

    Args:
        options: where they start from.
        more: defaults of an algorithm's own options, dataclasses.

    Raises:
        SystemExit: with 0 after --help.
        ValueError: a flag, its value or the preset is unknown, or may not change on resume; in
            one line.
    """
    first = {name: given(name, argv) for name in ("env", "preset", "resume")}
    first = {name: value for name, value in first.items() if value is not None}
    if "resume" in first:
        start = _saved(algorithm, first["resume"], more)
    else:
        start = _preset(algorithm, first), options or RunOptions(), *more

    asked = parse_config(start, description, argv)
    if asked[1].resume:
        _check_unchanged(start, asked)
    return asked


def parse_config(
    start: tuple[Config, *tuple[Any, ...]], description: str, argv: list[str]
) -> tuple[Config, *tuple[Any, ...]]:
    """A config and a script's options, dataclasses, that the flags ask for on top of these.

    Raises:
        SystemExit: with 0 after --help.
        ValueError: a flag or its value is wrong; in one line.
    """
    parts = {type(part).__name__: Annotated[type(part), tyro.conf.arg(name="")] for part in start}
    kind = dataclasses.make_dataclass("Flags", parts.items(), frozen=True)
    known = [field.name for part in start for field in dataclasses.fields(part)]
    flags = _cli(kind, argv, description, known, default=kind(*start), registry=_registry())
    return tuple(getattr(flags, name) for name in parts)


def parse_options(kind: type, description: str, argv: list[str], default: Any = None):
    """Options of a script that are no `Config`, from a dataclass of them.

    Raises:
        SystemExit: with 0 after --help.
        ValueError: a flag or its value is wrong; in one line.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    start = {} if default is None else {"default": default}
    return _cli(kind, argv, description, names, **start)


def given(name: str, argv: list[str]) -> str | None:
    """The value of a flag, before all flags are known; of one that is repeated the last."""
    found = None
    for i, arg in enumerate(argv):
        if arg.startswith(f"--{name}="):
            found = arg.partition("=")[2]
        elif arg == f"--{name}" and i + 1 < len(argv) and not argv[i + 1].startswith("--"):
            found = argv[i + 1]
    return found


def _cli(kind, argv, description, names, **options):
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(kind, args=argv, description=description, **options)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(_one_line(errors.getvalue(), names)) from None


def start_from(algorithm: str, argv: list[str]) -> Config:
    """The settings that the flags --env and --preset start from.

    Raises:
        ValueError: there is no such preset.
    """
    first = {name: given(name, argv) for name in ("env", "preset")}
    return _preset(algorithm, {name: value for name, value in first.items() if value is not None})


def _preset(algorithm, first):
    env = first.get("env", first.get("preset", "CartPole-v1"))
    name = first.get("preset", env)
    try:
        start = preset(algorithm, name)
    except ValueError:
        if "preset" in first and name != "none":
            raise
        start = base(algorithm)
    return dataclasses.replace(start, env=Config().env if env == "none" else env)


def _saved(algorithm, run_dir, more):
    """The settings and options of a run that is to be resumed."""
    record = runs.read_record(run_dir)
    if record.get("algorithm") != algorithm:
        raise ValueError(f"{run_dir!r} is a run of {record.get('algorithm')}, not of {algorithm}")
    names = (*RESULTS, "checkpoint_every", "keep_checkpoints", "device")
    kept = {name: record["run"][name] for name in names if name in record["run"]}
    options = RunOptions(**kept, run_dir=Path(run_dir)).validate()
    kept_own = (record["run"].get(_key(part), {}) for part in more)
    own = [dataclasses.replace(part, **kept).validate() for part, kept in zip(more, kept_own)]
    return runs.read_config(record), options, *own


def _key(part):
    """What an algorithm's own options are called in config.json."""
    return type(part).__name__.removesuffix("Config").lower() + "s"


def _check_unchanged(before, after):
    """That nothing is asked for on resume but what may change."""
    saved, asked = (_settings(*parts) for parts in (before, after))
    if asked["total_timesteps"] < saved["total_timesteps"]:
        raise ValueError(
            f"total_timesteps = {asked['total_timesteps']}: may only be raised on resume, from"
            f" {saved['total_timesteps']}"
        )
    changes = other_settings(saved, asked)
    if changes:
        raise ValueError(f"on resume only total_timesteps may be raised: the run has {changes}")


def other_settings(saved: Mapping, asked: Mapping) -> str:
    """What a saved run has otherwise, as "name = this, not that, ...", but for total_timesteps."""
    names = [name for name in differing([saved, asked]) if name != "total_timesteps"]
    return ", ".join(f"{name} = {saved[name]!r}, not {asked[name]!r}" for name in names)


def record(options: RunOptions, *more: Any) -> dict:
    """The options as config.json holds them."""
    own = {_key(part): dataclasses.asdict(part) for part in more}
    return {**dataclasses.asdict(options), "run_dir": str(options.run_dir), **own}


def _settings(config, options, *more):
    """All that may not change."""
    results = {name: getattr(options, name) for name in RESULTS}
    own = {name: value for part in more for name, value in dataclasses.asdict(part).items()}
    own.pop("max_worker_restarts", None)  # changes nothing of what is learned
    return {**runs.config_record(config), **results, **own, "run_dir": str(options.run_dir)}


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
            str_from_instance=lambda pairs: [f"{name}={_written(x)}" for name, x in pairs],
        )

    return registry


def _name_and_value(text):
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not of the form name=value")
    return name, value_of(value)


def value_of(text: str) -> Any:
    """The value that text stands for, as Python or JSON writes it: a number, true, false, None
    or null, a quoted string, a list, tuple or dict. All else is text.

    Raises:
        ValueError: it begins as a list, tuple or dict and is none.
    """
    with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ast.literal_eval(text)
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text, parse_constant=_refuse)
    if text[:1] in ("[", "(", "{"):
        raise ValueError(f"{text!r} is no list, tuple or dict as Python or JSON writes it")
    return None if text == "none" else text


def _refuse(name):
    raise ValueError(name)


def _written(value):
    """What `value_of` reads as this value."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            if value_of(value) == value:
                return value
    return repr(value)


def _one_line(box, names):
    """The message out of the box that tyro draws around an error: between its first two rules."""
    parts = re.split(r"(?m)^.*[─-]{8,}.*$", box)
    message = " ".join(parts[1].replace("│", " ").split())
    wrong = re.search(r"Unrecognized options: --([\w-]+)", message)
    if wrong:
        flags = [f"--{name.replace('_', '-')}" for name in names]
        return unknown("flag", f"--{wrong[1]}", flags).split(": known")[0]
    return message


def set_device(device: str, cpu_devices: int = 1) -> str:
    """Chooses where JAX computes; must run before JAX starts.

    Args:
        cpu_devices: that a CPU is to be, for programs that are spread over devices.

    Returns:
        The device's name.

    Raises:
        ValueError: there is no such device.
    """
    set_xla_flags(device)
    import jax

    _keep_compiled_programs()
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    is_said = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if cpu_devices > 1 and not is_said and jax.config.jax_num_cpu_devices < 1:
        jax.config.update("jax_num_cpu_devices", cpu_devices)
    try:
        found = jax.devices(None if device == "auto" else device)[0]
    except RuntimeError:
        raise ValueError(
            f"device = {device!r}: there is none here; 'cpu' is always there"
        ) from None
    return found.device_kind if found.platform != "cpu" else "cpu"


def set_xla_flags(device: str) -> None:
    """Those for a CPU, where one computes."""
    if device == "cpu" or not metadata.entry_points(group="jax_plugins"):
        theirs = os.environ.get("XLA_FLAGS", "")
        ours = [flag for flag in CPU_FLAGS if flag.partition("=")[0] not in theirs]
        os.environ["XLA_FLAGS"] = " ".join([*ours, *theirs.split()])


def _keep_compiled_programs():
    """In the user's cache folder, for the next start; JAX_COMPILATION_CACHE_DIR names another, and
    JAX_ENABLE_COMPILATION_CACHE=false turns it off."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rljax"
        with contextlib.suppress(OSError):  # no home, or one that cannot be written
            cache.mkdir(parents=True, exist_ok=True)
            jax.config.update("jax_compilation_cache_dir", str(cache))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def fail(error: Exception) -> int:
    """Prints what is wrong; the exit status: 2 for bad input, else 1."""
    print(f"error: {error}", file=sys.stderr)
    return 1 if isinstance(error, atomic_io.WriteError | forkserver.EnvError) else 2
