"""A run as an object: its metrics, summary and policies."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rljax.config import MAX_EPISODE_STEPS, Config
from rljax.loggers import tables
from rljax.runs import checkpoints, directory, records
from rljax.utils import atomic_io


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run that was trained, resumed or loaded."""

    algorithm: str
    config: Config
    seeds: list[int]
    metrics: Any = dataclasses.field(repr=False)  # metrics.csv as a `pandas.DataFrame`
    summary: dict = dataclasses.field(repr=False)  # summary.json; empty if the run has not ended
    state: dict = dataclasses.field(repr=False)
    """The algorithm's state of all seeds, as nested dicts of NumPy arrays [S, ...]; of the best
    checkpoint only what its policy needs: {"learner": {"params": ...}}."""
    env_steps: list[int]  # [S] of each seed in `state`
    run_dir: Path | None = None  # None where nothing was written
    error: Exception | None = None  # that ended a run that failed
    exit_status: int = 0  # of a program that does this run: 0 if it is completed or stopped

    @property
    def status(self) -> str | None:
        """completed, stopped, interrupted, diverged or failed; None if the run has not ended."""
        return self.summary.get("status")

    def policy(self, seed: int | None = None, greedy: bool = False) -> Callable:
        """A trained policy as a plain function `policy(obs, key) -> action`; see
        `evaluation.policy`. It imports what the config names as 'package.module:attribute'.

        Args:
            seed: one of the run's seeds; by default the first.
            greedy: the distribution's mode rather than a sample; the key is not needed then.

        Raises:
            ValueError: the run has no such seed, or its network has changed since.
        """
        import jax

        from rljax import evaluation

        index, learners = self._index(seed), self.learners()
        return evaluation.policy(self.config, jax.tree.map(lambda x: x[index], learners), greedy)

    def learners(self) -> Any:
        """The `TrainState` [S] of all seeds, as far as a policy needs it; raises ValueError if the
        network has changed since the run was trained."""
        from rljax import evaluation

        if self.run_dir:
            check_network(self.run_dir, self.config)
        return evaluation.learners(self.config, self.state)

    def evaluate(
        self,
        episodes: int = 100,
        greedy: bool = True,
        envs: int | None = None,
        max_steps: int = MAX_EPISODE_STEPS,
        watch: Callable[[int, int, int], None] = lambda ended, episodes, steps: None,
    ) -> dict:
        """Mean, IQM and 95% interval over seeds, and each seed's mean return, over full, fresh
        episodes, not those of evaluations during training. Arguments and errors:
        `evaluation.evaluate`, `learners`.
        """
        from rljax import evaluation
        from rljax.utils import seeds

        keys = evaluation.evaluation_keys(seeds.keys(self.seeds), evaluation.FRESH)
        how = dict(num_envs=envs, max_steps=max_steps, watch=watch)
        result = evaluation.evaluate(self.config, self.learners(), keys, episodes, greedy, **how)
        told = {"env": self.config.env, "seeds": self.seeds, "env_steps": self.env_steps}
        how = "greedy" if greedy else "sampled", max_steps, self.config.log_info
        return told | returns_summary(result, *how)

    def plot(self, *paths: Path | str) -> Any:
        """The learning curve, also written to these files; shows itself in a notebook."""
        from rljax import analysis

        title = f"{self.algorithm.upper()} on {self.config.env}"
        return analysis.plot_learning_curves({"": self.metrics}, title, *map(Path, paths))

    def pictures(
        self,
        seed: int | None = None,
        episodes: int = 1,
        greedy: bool = True,
        max_steps: int = 1_000,
        bare: bool = False,
    ) -> tuple[list, list[float]]:
        """Pillow images of the first of the episodes that `evaluate` has with these arguments, and
        their returns.

        Args:
            seed: as for `policy`.
            bare: without return, step, action probabilities and value.

        Raises:
            ValueError: as `policy` does.
            EnvError: as `evaluate` does.
        """
        from rljax import watch

        played = self.play(seed, episodes, greedy, max_steps)
        images = [*watch.drawn(self.config.env, played, bare)]
        return images, [one.returns[-1] for one in played]

    def play(
        self,
        seed: int | None = None,
        episodes: int = 1,
        greedy: bool = True,
        max_steps: int = 1_000,
        render_mode: str = "rgb_array",
    ) -> list:
        """The first of the episodes that `evaluate` has with these arguments, as `watch.Episode`s:
        observations, returns so far, distributions over actions, values.

        Args:
            seed: as for `policy`.
            render_mode: "human" shows a gymnasium environment in a window meanwhile.

        Raises:
            ValueError: as `policy` does; there can be no window.
            EnvError: as `evaluate` does.
        """
        import jax

        from rljax import evaluation, watch
        from rljax.utils import seeds

        index = self._index(seed)
        learner = jax.tree.map(lambda x: x[index], self.learners())
        keys = evaluation.evaluation_keys(seeds.keys(self.seeds), evaluation.FRESH)
        how = episodes, greedy, max_steps, render_mode
        return watch.episodes(self.config, learner, keys[index], *how)

    def watch(self, seed: int | None = None, episodes: int = 1, fps: float = 30.0, **how) -> Any:
        """The agent playing, as a picture that moves in a notebook; further arguments and errors
        are those of `pictures`."""
        from IPython.display import Image

        from rljax.envs import render

        images, _ = self.pictures(seed, episodes, **how)
        return Image(data=render.gif(images, fps), format="gif")

    def export_params(self, path: Path, seed: int | None = None) -> Path:
        """Writes a policy for programs without JAX: arrays as safetensors, settings as JSON.
        `runs.export` describes both files and a step of the policy.

        Args:
            path: such as "policy.safetensors"; the settings go to "policy.json" then.
            seed: as for `policy`.

        Raises:
            ValueError: the run has no such seed, its network has changed since, or the path ends in
                .json.
            WriteError: a file could not be written.
        """
        import jax

        from rljax.runs import export

        path, index = Path(path), self._index(seed)
        if path.suffix == ".json":
            raise ValueError(f"path = {str(path)!r}: must not end in .json, where the config goes")
        learner = jax.tree.map(lambda x: x[index], self.learners())
        trained = {"seed": self.seeds[index], "env_steps": self.env_steps[index]}
        export.write(path, self.config, learner, trained)
        return path

    def _index(self, seed):
        if seed is None:
            return 0
        if seed not in self.seeds:
            raise ValueError(f"seed = {seed}: the run has {', '.join(map(str, self.seeds))}")
        return self.seeds.index(seed)


def load(run_dir: Path, checkpoint: str | int = "last") -> Run:
    """A saved run.

    Args:
        checkpoint: "last", "best" (of each seed the best in the evaluations during training) or the
            environment steps of one. Where the newest is damaged, "last" and "best" take the one
            before and warn.

    Raises:
        ValueError: there is no such run or checkpoint, or it is not whole.
    """
    run_dir = Path(run_dir)
    record = directory.read_record(run_dir)
    if checkpoint in ("last", "best"):
        manifest, trees, problems = checkpoints.newest(run_dir, records.check)
        for problem in problems:
            warnings.warn(f"{problem}; the one before is used", stacklevel=2)
    else:
        path = _chosen(run_dir, checkpoint)
        manifest, trees = checkpoints.load(path)
        records.check(path, manifest, trees)
    config = records.read_config(manifest)
    state = checkpoints.nest(trees["state"])
    env_steps = [int(n) * config.batch_size for n in state["learner"]["updates"]]
    if checkpoint == "best":
        if "best" not in trees:
            why = "it was not evaluated in training (--eval-every)"
            raise ValueError(f"{str(run_dir)!r} has no checkpoint 'best': {why}")
        env_steps = manifest["best"]["env_steps"]
        state = checkpoints.nest(trees["best"])
    metrics, summary = tables.read_metrics(run_dir), read_summary(run_dir)
    seeds = manifest["seeds"]
    return Run(record["algorithm"], config, seeds, metrics, summary, state, env_steps, run_dir)


def read_summary(run_dir: Path, name: str = "summary.json") -> dict:
    """summary.json, or another; empty where there is none, or it is damaged."""
    try:
        summary = atomic_io.read_json(run_dir / name)
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def check_network(run_dir: Path, config: Config) -> None:
    """Raises ValueError if the network or its inputs are not those of a run: the record has others,
    or an earlier version, without such records, did not divide observations by 255; ValueError or
    TypeError if environment or network cannot be made."""
    from rljax import networks, rollout
    from rljax.envs import spaces
    from rljax.envs.host_envs import HostEnv

    env, _ = rollout.make_env_and_network(config)
    now = networks.describe(config, env.spec)
    then = directory.read_record(run_dir).get("network")
    if then is not None and then != now:
        why = f"the network {then}, which is now {now}"
        raise ValueError(f"{str(run_dir)!r} was trained with {why}")
    if then is None and isinstance(env, HostEnv) and spaces.is_scaled_anew(env.declared[0]):
        why = "did not divide observations from 0 to 255 by 255 where they are no bytes"
        told = f"{str(run_dir)!r} was trained by an earlier version, which {why}"
        raise ValueError(f"{told}; give the environment other bounds")


def returns_summary(result: Any, mode: str, max_steps: int, log_info: Sequence[str] = ()) -> dict:
    """Statistics over the seeds' mean returns, from an `Evaluation` [S, N]; and the means over the
    seeds of the numbers of `Config.log_info`."""
    from rljax import analysis

    info = dict(zip(log_info, info_means(result).mean(axis=0).tolist()))
    per_seed = result.returns.astype(float).mean(axis=1)
    ends = [float(x) for x in analysis.interval(per_seed)]
    return {
        "mean": float(per_seed.mean()),
        "iqm": float(analysis.iqm(per_seed)),
        "ci95": ends if len(per_seed) > 1 else None,
        "per_seed": per_seed.tolist(),
        "mode": mode,
        "episodes": result.returns.shape[1],
        "unfinished": int((~result.finished).sum()),
        "max_steps": max_steps,
        **({"info": info} if info else {}),
    }


def info_means(result: Any) -> np.ndarray:
    """The numbers of `Config.log_info` in an `Evaluation` [S, N]: means [S, K] over the episodes
    that ended by themselves, NaN where none did; [S, 0] if there are none."""
    if result.info is None:
        return np.zeros((len(result.returns), 0))
    ended = result.finished[..., None]
    with np.errstate(invalid="ignore"):
        return np.where(ended, result.info, 0).sum(axis=1, dtype=float) / ended.sum(axis=1)


def _chosen(run_dir, checkpoint):
    steps = checkpoints.existing(run_dir)
    if not str(checkpoint).isdecimal() or int(checkpoint) not in steps:
        best = ["best"] * any((run_dir / "checkpoints").glob("*/best.safetensors"))
        listed = ", ".join(["last", *best, *map(str, steps)]) if steps else "none"
        raise ValueError(f"{str(run_dir)!r} has no checkpoint {checkpoint!r}: there are {listed}")
    return checkpoints.folder(run_dir, int(checkpoint))
