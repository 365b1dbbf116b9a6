"""Processes on the loopback that train as one."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(number, flags, script="a2c.py", own=None, code=None):
    """The processes of a run; flags, and a program instead of the script, that some have."""
    address, own, code = f"127.0.0.1:{free_port()}", own or {}, code or {}
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    how = dict(env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    processes = []
    for i in range(number):
        program = ["-c", code[i]] if i in code else [str(EXPERIMENTS / script)]
        group = ["--coordinator", address, "--num-processes", str(number), "--process-id", str(i)]
        command = [sys.executable, *program, *group, *flags, *own.get(i, [])]
        processes.append(subprocess.Popen(command, **how))
    return processes


@contextlib.contextmanager
def in_the_end_killed(processes):
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def finish(number, flags, script="a2c.py"):
    """Runs to the end; (stdout, stderr) of each."""
    processes = start(number, flags, script)
    with in_the_end_killed(processes):
        told = [process.communicate(timeout=240) for process in processes]
        assert [process.returncode for process in processes] == [0] * number, told
    return told


def wait_for(is_so, processes):
    for _ in range(2400):
        if is_so():
            return
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    raise TimeoutError


def told_on(output):
    """Its lines that are not of JAX's communication on CPUs, whose threads mix theirs."""
    return [line for line in output.splitlines() if line and not line.startswith("[Gloo]")]
