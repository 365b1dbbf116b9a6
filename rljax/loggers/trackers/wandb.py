"""Weights & Biases: one run for each seed, in a group; online, or with WANDB_MODE=offline."""

import os
from collections.abc import Mapping

import wandb

from rljax.loggers.trackers import tags
from rljax.loggers.trackers.media import media

PROJECT = "rljax"  # unless WANDB_PROJECT says otherwise


class WandB:
    """A run that is resumed goes on where the server's ended; offline it is written anew."""

    def begin(self, record: Mapping) -> None:
        mode = os.environ.get("WANDB_MODE", "online")
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            raise ValueError("no API key: run `wandb login`, or set WANDB_MODE=offline")
        # On a busy machine its service takes long to start; training does not wait for it.
        patience = dict(init_timeout=120, x_service_wait=120)
        settings = wandb.Settings(console="off", silent=True, **patience)
        common = dict(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=record["name"],
            dir=record["run_dir"],
            config={**record["config"], "algorithm": record.get("algorithm")},
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            settings=settings,
        )
        self.run_dir, self.runs = record["run_dir"], {}
        for seed in record["seeds"]:
            own = dict(name=f"{record['name']} seed {seed}", id=f"{record['id']}-{seed}")
            self.runs[seed] = wandb.init(**common, **own)
        self.known = {seed: run.starting_step for seed, run in self.runs.items()}

    def write(self, row: Mapping) -> None:
        if row["env_steps"] >= self.known[row["seed"]]:
            self.runs[row["seed"]].log(tags.of(row), step=row["env_steps"])

    def end(self, summary: Mapping) -> None:
        for run in self.runs.values():
            run.summary["status"] = summary["status"]
        first = next(iter(self.runs.values()))
        for name, path in media(self.run_dir).items():
            is_video = path.suffix == ".gif"
            made = wandb.Video(str(path), format="gif") if is_video else wandb.Image(str(path))
            first.log({name: made})
        for run in self.runs.values():
            run.finish(0 if summary["status"] in ("completed", "stopped") else 1)
