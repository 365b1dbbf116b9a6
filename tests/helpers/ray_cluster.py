"""Ray clusters of several nodes in this machine, as tests start and harm them. A process of its own
holds each, as Ray forks, which none in which JAX runs may do."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import NamedTuple

from processes_of_tests import processes


class Cluster(NamedTuple):
    """A cluster that runs."""

    address: str
    raylets: list[int]  # of the nodes, the driver's first


@contextlib.contextmanager
def running(*cpus):
    """A cluster whose nodes have these numbers of CPUs."""
    command = [sys.executable, __file__, *map(str, cpus)]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with subprocess.Popen(command, text=True, start_new_session=True, **pipes) as process:
        yield Cluster(*json.loads(process.stdout.readline()))
        process.stdin.close()


def actors(name):
    """pid: parent's pid, of the living actors of a kind, in whatever cluster."""
    found = {}
    for pid, (parent, command) in processes().items():
        if command.startswith(f"ray::{name}"):
            found[pid] = parent
    return found


def kill_node(raylet):
    """Kills a node's processes: the raylet and all that it started."""
    doomed, found = {raylet}, processes()
    for _ in range(4):
        doomed |= {pid for pid, (parent, _) in found.items() if parent in doomed}
    for pid in doomed:
        with contextlib.suppress(ProcessLookupError):  # it ended with another one
            os.kill(pid, signal.SIGKILL)


def wait_until(is_so, seconds=20):
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert is_so()


def main(head, *others):
    from ray import cluster_utils

    made = cluster_utils.Cluster(initialize_head=True, head_node_args=dict(num_cpus=int(head)))
    nodes = [made.head_node, *(made.add_node(num_cpus=int(number)) for number in others)]
    raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
    print(json.dumps([made.address, raylets]), flush=True)
    sys.stdin.read()
    made.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
