"""Environments for what concerns the processes that they are in."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from multiprocessing import parent_process
from pathlib import Path

from host_probes import RewardByAction
from probes import RewardByAction as RewardByActionInJax


class Exiting(RewardByAction):
    """Ends its process at the fifth step, as it thinks."""

    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps == 5 and parent_process():
            sys.exit(3)
        return super().step(action)


class ExitingInJax(RewardByActionInJax):
    """The same while it is compiled in a worker."""

    def rule(self, state, action):
        if parent_process():
            raise KeyboardInterrupt
        return super().rule(state, action)


class Aborting(RewardByAction):
    """Is killed at every thirtieth step."""

    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps == 30 and parent_process():
            os.abort()
        return super().step(action)


class Refusing(RewardByAction):
    """Cannot be made in a process, for a reason of its own."""

    def __init__(self, why="nothing"):
        if parent_process():
            raise {"nothing": ValueError(), "unsayable": UnsayableError(), "exit": SystemExit()}[
                why
            ]


class UnsayableError(ValueError):
    def __str__(self):
        raise RuntimeError("no words")


class WithChildren(RewardByAction):
    """Runs programs and a process beside it; their numbers become names in a folder."""

    def __init__(self, folder):
        self.children = []
        if parent_process():
            short = subprocess.Popen(["sleep", "1000"])
            short.terminate()
            assert short.wait(timeout=20) < 0
            fork = multiprocessing.get_context("fork")
            process = fork.Process(target=time.sleep, args=(1000,))
            self.children = [fork.Process(target=time.sleep, args=(1000,)) for _ in range(2)]
            self.children[1].daemon = True
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # JAX is in this process, and not in those
                for child in (process, *self.children):
                    child.start()
            process.terminate()
            process.join(20)
            assert process.exitcode == -signal.SIGTERM
            program = subprocess.Popen(["sleep", "1000"])
            pids = [child.pid for child in (*self.children, program)]
            for pid in (os.getpid(), *pids):
                Path(folder, str(pid)).touch()
