"""Runs a script whose files are each written in two halves, a fifth of a second apart.

python slow_writes.py SCRIPT FLAGS...
"""

import io
import runpy
import sys
import time

from rljax.utils import atomic_io


class SlowFile(io.FileIO):
    def write(self, data):
        half = len(data) // 2
        written = super().write(data[:half])
        time.sleep(0.2)
        return written + super().write(data[half:])


def slow_open(path, mode="r", **options):
    return SlowFile(path, "w") if mode == "wb" else open(path, mode, **options)


atomic_io.open = slow_open
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
