"""Scripts and their processes, as tests start and watch them."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path


def processes():
    """pid: (parent's pid, command), of all living processes."""
    found = {}
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if path.name.isdecimal():
                state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
                if state not in "ZX":
                    command = (path / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(path.name)] = int(parent), command.decode(errors="replace")
    return found


def parents():
    """pid: parent's pid, of all living processes."""
    return {pid: parent for pid, (parent, _) in processes().items()}


def children_of(pid):
    """What a process started: children of the server that it forks from."""
    found = parents()
    servers = {p for p, parent in found.items() if parent == pid and is_server(p)}
    return {p for p, parent in found.items() if parent in servers}


def is_server(pid):
    with contextlib.suppress(OSError):
        return b"rljax.utils.preload" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def start_script(script, flags, run_dir, rows):
    """The script on a run that would take minutes, once it has written so many rows."""
    process = subprocess.Popen(
        [sys.executable, script, *flags, "--run-dir", run_dir, "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_rows(run_dir, rows, process)
    return process


def wait_for_rows(run_dir, number, process):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        metrics = run_dir / "metrics.csv"
        if metrics.exists() and metrics.read_text().count("\n") > number:
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    raise AssertionError("no rows after 90 s")
