"""MLflow: one run for each seed, with the tag "group", on the server that MLFLOW_TRACKING_URI names
or in files.
"""

import logging
import os
import time
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from rljax.loggers.trackers import tags
from rljax.loggers.trackers.media import media

EXPERIMENT = "rljax"  # unless MLFLOW_EXPERIMENT_NAME says otherwise
_ID = "rljax.id"


class MLflow:
    """A run that is resumed goes on where it ended."""

    def begin(self, record: Mapping) -> None:
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self.client, self.run_dir = MlflowClient(), record["run_dir"]
        self.started = record["started"]
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self.client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self.client.create_experiment(name)
        self.runs, self.known = {}, {}
        for seed in record["seeds"]:
            own = f"{record['id']}-{seed}"
            before = self.client.search_runs([experiment], f"tags.`{_ID}` = '{own}'")
            if before:
                self.runs[seed] = before[0].info.run_id
                self.client.update_run(self.runs[seed], status="RUNNING")
            else:
                self.runs[seed] = self._created(experiment, record, seed, own)
            self.known[seed] = self._last_steps(before)

    def _created(self, experiment, record, seed, own):
        group = record["name"]
        names = {"group": group, _ID: own, "algorithm": str(record.get("algorithm"))}
        run = self.client.create_run(experiment, tags=names, run_name=f"{group} seed {seed}")
        params = [Param(name, str(x)) for name, x in {**record["config"], "seed": seed}.items()]
        self.client.log_batch(run.info.run_id, params=params)
        return run.info.run_id

    def _last_steps(self, before):
        """By tag."""
        histories = (
            (tag, self.client.get_metric_history(run.info.run_id, tag))
            for run in before
            for tag in run.data.metrics
        )
        return {tag: max(point.step for point in history) for tag, history in histories}

    def write(self, row: Mapping) -> None:
        at, known = row["env_steps"], self.known[row["seed"]]
        when = self.started + row["wall_seconds"] if "wall_seconds" in row else time.time()
        new = {tag: x for tag, x in tags.of(row).items() if at > known.get(tag, -1)}
        points = [Metric(tag, x, int(1000 * when), at) for tag, x in new.items()]
        self.client.log_batch(self.runs[row["seed"]], metrics=points)

    def end(self, summary: Mapping) -> None:
        status = "FINISHED" if summary["status"] in ("completed", "stopped") else "FAILED"
        for run in self.runs.values():
            for path in media(self.run_dir).values():
                self.client.log_artifact(run, str(path))
            self.client.set_terminated(run, status)
