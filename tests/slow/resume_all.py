"""Resumes runs one after another, compiled once; prints (exit status, stderr) of each as JSON.

python resume_all.py RUN_DIR...
"""

import contextlib
import io
import json
import sys

from rljax.cli import training

answers = []
for run_dir in sys.argv[1:]:
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        status = training.main("a2c", "Resumes.", ["--resume", run_dir, "--quiet"])
    answers.append((status, err.getvalue()))
print(json.dumps(answers))
