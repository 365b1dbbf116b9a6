"""What trackers show of a run besides numbers."""

from pathlib import Path


def media(run_dir: Path | None) -> dict[str, Path]:
    """The pictures of a run by name, for trackers: its learning curve, and its newest video."""
    if run_dir is None:
        return {}
    videos = sorted(run_dir.glob("videos/*.gif"), key=lambda path: path.name.rpartition("_")[2])
    found = {"learning_curve": run_dir / "learning_curve.png"}
    if videos:
        found["video"] = videos[-1]
    return {name: path for name, path in found.items() if path.exists()}
