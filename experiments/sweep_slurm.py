"""Trains one sweep in several jobs of a Slurm cluster, which join it in a folder that all share.

python experiments/sweep_slurm.py --jobs 8 --hours 4 --gpus 1 -- --join runs/big --axis gamma=0.9,1
python experiments/sweep_slurm.py --executor local -- --join runs/small --axis gamma=0.9,0.99

After "--" are the flags of sweep.py; for what is left when the jobs have ended, --join RUN_DIR is
enough of them.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Literal

from rljax import cli
from rljax.cli import flags, sweep
from rljax.utils import imports
from rljax.utils.checks import check


@dataclasses.dataclass(frozen=True)
class Options:
    executor: Literal["slurm", "local"] = "slurm"
    """slurm submits an array of jobs and returns; local starts processes here and waits."""
    jobs: int = 2
    """Jobs that join the sweep."""
    hours: float = 1.0
    """After which a job ends; others, and later ones, train what it had claimed."""
    cpus: int = 2
    """Cores of a job."""
    gpus: int = 0
    """GPUs of a job."""
    partition: str | None = None
    """Of the cluster."""
    logs: Path = Path("runs/slurm")
    """Folder, also shared, for submitit's files: what the jobs print."""


def main(argv: list[str] | None = None) -> int:
    """Submits the jobs; returns the exit status, of local ones the highest."""
    argv = sys.argv[1:] if argv is None else argv
    start = argv.index("--") if "--" in argv else len(argv)
    own, asked = argv[:start], argv[start + 1 :]

    def run(own, signals, stack):
        try:
            options = flags.parse_options(Options, __doc__.splitlines()[0], own)
            check(options, jobs=1, cpus=1, gpus=0)
            if not sweep.parse("", asked).is_joined:
                raise ValueError("join: must be given after --, as --join RUN_DIR")
            jobs = submit(options, asked)
        except (ValueError, TypeError) as error:
            return cli.fail(error)
        for job in jobs:
            print(f"job {job.job_id}: {job.paths.stdout}", flush=True)
        return max(job.result() for job in jobs) if options.executor == "local" else 0

    return cli.run_script(run, own)


def submit(options: Options, argv: list[str]) -> list:
    """Submits the jobs, each with these flags of sweep.py; raises ValueError if it cannot."""
    imports.check_installed(f"executor = {options.executor!r}", "slurm", "submitit")
    import submitit

    try:
        executor = submitit.AutoExecutor(folder=options.logs, cluster=options.executor)
    except RuntimeError as error:
        raise ValueError(f"executor = {options.executor!r}: {error}") from error
    executor.update_parameters(
        name="sweep",
        timeout_min=max(1, round(60 * options.hours)),
        cpus_per_task=options.cpus,
        gpus_per_node=options.gpus,
        slurm_partition=options.partition,
    )
    number = options.jobs
    return executor.map_array(sweep.main, [__doc__] * number, [argv] * number)


if __name__ == "__main__":
    sys.exit(main())
