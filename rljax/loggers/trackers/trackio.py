"""trackio: one run for each seed, in a group; on this machine, or where TRACKIO_SPACE_ID says."""

import contextvars
import os
from collections import defaultdict
from collections.abc import Mapping

import trackio
import trackio.run
import trackio.utils
from trackio.sqlite_storage import SQLiteStorage

from rljax.loggers.trackers import tags
from rljax.loggers.trackers.media import media

PROJECT = "rljax"  # unless TRACKIO_PROJECT says otherwise
for module in (trackio, trackio.run, trackio.utils):
    module.print = lambda *_, **__: None  # five lines for each seed, in the midst of ours


class Trackio:
    """A run that is resumed goes on where it ended."""

    def begin(self, record: Mapping) -> None:
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self.run_dir, self.runs, self.known = record["run_dir"], {}, {}
        for seed in record["seeds"]:
            name = f"{record['name']} {record['id']}-{seed}"
            config = {**record["config"], "algorithm": record.get("algorithm"), "seed": seed}
            how = dict(project=project, name=name, group=record["name"], config=config)
            how |= dict(resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False)
            self.known[seed] = _last_steps(project, name)
            # Each in a context of its own, or `init` would end the one before.
            self.runs[seed] = contextvars.Context().run(trackio.init, **how)

    def write(self, row: Mapping) -> None:
        at, known = row["env_steps"], self.known[row["seed"]]
        new = {tag: x for tag, x in tags.of(row).items() if at > known.get(tag, -1)}
        if new:
            self.runs[row["seed"]].log(new, step=at)

    def end(self, summary: Mapping) -> None:
        first = next(iter(self.runs.values()))
        for name, path in media(self.run_dir).items():
            is_video = path.suffix == ".gif"
            made = trackio.Video(str(path)) if is_video else trackio.Image(str(path))
            first.log({name: made}, step=summary["env_steps"])
        for run in self.runs.values():
            run.finish()


def _last_steps(project, name):
    """By tag."""
    last = defaultdict(lambda: -1)
    for point in SQLiteStorage.get_logs(project, name):
        for tag in point:
            last[tag] = max(last[tag], point["step"])
    return last
