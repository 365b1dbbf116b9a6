"""Two network namespaces with a cable between them, and a Ray cluster of a node in each: two
machines to everything that uses TCP."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ADDRESSES = "10.77.0.1", "10.77.0.2"
NAMES = "rljax-a", "rljax-b"
HEAD = f"{ADDRESSES[0]}:6399"


@contextlib.contextmanager
def two_machines():
    """Raises an OSError or a CalledProcessError where namespaces are not allowed."""
    try:
        for name in NAMES:
            _ip(f"netns add {name}")
        _ip(f"link add cable netns {NAMES[0]} type veth peer cable netns {NAMES[1]}")
        for name, address in zip(NAMES, ADDRESSES):
            _ip(f"-n {name} addr add {address}/24 dev cable")
            _ip(f"-n {name} link set lo up")
            _ip(f"-n {name} link set cable up")
        yield
    finally:
        for name in NAMES:
            with contextlib.suppress(OSError, subprocess.CalledProcessError):
                _ip(f"netns del {name}")


@contextlib.contextmanager
def ray_on_both():
    """A cluster with a CPU on each of two machines."""
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1"]
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        head = ["--head", "--port=6399", "--include-dashboard=false", f"--temp-dir={folder}"]
        nodes = [[*ray, *head], [*ray, f"--address={HEAD}"]]
        started = []
        try:
            for name, address, command in zip(NAMES, ADDRESSES, nodes):
                started.append(_start(name, [*command, f"--node-ip-address={address}"]))
                _wait_for_cpus(ray[0], len(started))
            yield HEAD
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait(30)


def run_on_first(*command):
    """Starts a program on the first machine."""
    return _start(NAMES[0], command)


def plug(is_in):
    """Connects the two machines, or cuts the cable."""
    _ip(f"-n {NAMES[1]} link set cable {'up' if is_in else 'down'}")


def _start(name, command):
    command = ["ip", "netns", "exec", name, *command]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}  # there is no one else
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)


def _wait_for_cpus(ray, number):
    """Until the cluster knows of as many, in at most two minutes."""
    status = ["ip", "netns", "exec", NAMES[0], ray, "status", f"--address={HEAD}"]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        told = subprocess.run(status, capture_output=True, text=True, env=environment)
        if f"/{number}.0 CPU" in told.stdout:
            return
        time.sleep(1)
    raise AssertionError(f"no {number} CPUs: {told.stdout}{told.stderr}")


def _ip(what):
    subprocess.run(["ip", *what.split()], check=True, capture_output=True)
