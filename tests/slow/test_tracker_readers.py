"""Trackers, read back by their own readers. They need the extras `all`."""

import json
import os
import struct
import subprocess
import sys
import warnings

import numpy as np
import pytest
from small_runs import train, train_half

import rljax
from rljax import sweep
from rljax.cli import export
from rljax.loggers import tables
from rljax.loggers.trackers import feed, tags

pytestmark = pytest.mark.slow

SHORT = dict(total_timesteps=640, eval_every=320, eval_episodes=2)
DOC = "Exports.\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Trackers write into a folder of the test, and ask no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    trackio = pytest.importorskip("trackio.sqlite_storage")
    monkeypatch.setattr(trackio, "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr(feed, "PATIENCE", 600.0)  # machines that test can be busy


def wanted(run_dir, seed):
    """Every number of the tables, by tag and environment steps."""
    rows = [row for row in tables.logged(run_dir) if row["seed"] == seed]
    return {(tag, row["env_steps"]): x for row in rows for tag, x in tags.of(row).items()}


def of_tensorboard(run_dir, seed, part=""):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run_dir / "tensorboard" / f"{part}seed_{seed}"
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    points = [(tag, event) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)]
    found = {(tag, event.step): event.value for tag, event in points}
    assert len(found) == len(points)  # none twice
    return found


def of_mlflow(run_dir, seed):
    from mlflow import MlflowClient

    record, client = json.loads((run_dir / "config.json").read_text()), MlflowClient()
    experiment = client.get_experiment_by_name("rljax").experiment_id
    own = f"tags.`rljax.id` = '{record['id']}-{seed}'"
    (run,) = client.search_runs([experiment], own)
    points = [
        (tag, point)
        for tag in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, tag)
    ]
    found = {(tag, point.step): point.value for tag, point in points}
    assert len(found) == len(points)
    return found


def of_trackio(run_dir, seed):
    from trackio.sqlite_storage import SQLiteStorage

    record = json.loads((run_dir / "config.json").read_text())
    logs = SQLiteStorage.get_logs("rljax", f"{run_dir.name} {record['id']}-{seed}")
    points = [
        ((tag, point["step"]), x)
        for point in logs
        for tag, x in point.items()
        if isinstance(x, int | float) and tag != "step"
    ]
    assert len(dict(points)) == len(points)
    return dict(points)


def messages(data):
    """Of a log in LevelDB's format: blocks of 32 KiB with pieces of messages, each behind its sum,
    its length and its kind: whole, first, middle or last. W&B's has a head of 7 bytes."""
    at, message = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        message += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield message
            message = b""


def of_wandb(run_dir, seed):
    """From the records of the offline files. Runs that begin within one second have folders that
    end in -1, -2 ...: the files' own name tells them."""
    from wandb.proto import wandb_internal_pb2

    record, found = json.loads((run_dir / "config.json").read_text()), {}
    for path in (run_dir / "wandb").glob(f"offline-run-*/run-{record['id']}-{seed}.wandb"):
        for data in messages(path.read_bytes()):
            message = wandb_internal_pb2.Record()
            message.ParseFromString(data)
            items = {i.key or "/".join(i.nested_key): i.value_json for i in message.history.item}
            for tag, x in items.items():
                if "/" in tag and not tag.startswith(("learning_curve", "video")):
                    point = tag, message.history.step.num
                    assert found.setdefault(point, float(x)) == float(x)
    return found


READERS = {
    "tensorboard": of_tensorboard,
    "mlflow": of_mlflow,
    "trackio": of_trackio,
    "wandb": of_wandb,
}


def assert_all_there(name, run_dir):
    for seed in (5, 6):
        found, numbers = READERS[name](run_dir, seed), wanted(run_dir, seed)
        assert set(numbers) <= set(found)
        others = {tag for tag, _ in set(found) - set(numbers)}
        assert others <= {"eval/final_return"}
        for point, x in numbers.items():
            assert found[point] == (np.float32(x) if name == "tensorboard" else x), point


@pytest.mark.parametrize("name", READERS)
def test_a_tracker_holds_every_number_live_and_after_a_resume(name, tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="logger")
        train(tmp_path / "live", **SHORT, log=name, render_every=320)
        assert_all_there(name, tmp_path / "live")
        run_dir = train_half(tmp_path / "resumed", log=name)
        rljax.resume(run_dir, quiet=True)
        assert_all_there(name, run_dir)


def test_tensorboard_has_the_curve_and_the_newest_video(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path / "run", **SHORT, log="tensorboard", render_every=320)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard" / "seed_5")).Reload()
    (curve,), (video,) = map(events.Images, ("learning_curve", "video"))
    assert curve.encoded_image_string == (tmp_path / "run" / "learning_curve.png").read_bytes()
    newest = tmp_path / "run" / "videos" / "seed_5_000000000640.gif"
    assert video.encoded_image_string == newest.read_bytes()


@pytest.mark.parametrize("name", READERS)
def test_tables_are_exported_after_the_fact(name, tmp_path, capfd):
    train(tmp_path / "run", **SHORT)
    for _ in range(2):  # the second time nothing is repeated
        assert export.main(DOC, [str(tmp_path / "run"), "--to", name]) == 0
        assert_all_there(name, tmp_path / "run")
    assert f"rows written to {name}" in capfd.readouterr().out


def test_trials_of_a_sweep_are_exported(tmp_path):
    from rljax.cli import sweep as sweep_cli

    run_dir = tmp_path / "sweep"
    flags = "--env probes:RewardByAction --total-timesteps 640 --num-envs 4 --num-steps 4"
    flags += f" --hidden-sizes 8 --num-seeds 2 --eval-episodes 2 --run-dir {run_dir} --quiet"
    assert sweep_cli.main(DOC, [*flags.split(), "--axis", "learning_rate=0.01,0.02"]) == 0
    assert export.main(DOC, [str(run_dir), "--to", "tensorboard"]) == 0
    table = sweep.read(run_dir)
    for (trial, seed), rows in table.groupby(["trial", "seed"]):
        found = of_tensorboard(run_dir, seed, f"trial_{trial}_")
        for _, row in rows.iterrows():
            at = row["env_steps"]
            assert np.isclose(found["losses/loss", at], row["loss"], rtol=1e-5)
        assert found["eval/episodic_return", at] == row["eval_return"]


@pytest.mark.parametrize("name", READERS)
def test_a_tracker_needs_no_package_of_another(name):
    packages = {"tensorboard": "tensorboardX", **{n: n for n in READERS if n != "tensorboard"}}
    others = [package for other, package in packages.items() if other != name]
    absent = f"import sys; sys.modules.update(dict.fromkeys({others}))"
    program = f"{absent}; from rljax.loggers import trackers; trackers.make([{name!r}])"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_wandb_without_a_login_is_one_line_and_training_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", os.devnull)
    with pytest.warns(UserWarning, match="logger wandb: begin failed: ValueError: no API key"):
        run = train(tmp_path / "run", **SHORT, log="wandb")
    assert run.status == "completed"
