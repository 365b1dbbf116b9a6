"""A fuzzer over every file that is read: what was harmed, or put there by someone hostile, is told
in one line, and nothing hangs, takes much memory, or is read or touched outside of the folder.

A case is a number: the same number gives the same harm. What failed names it, and
`python tests/runs/test_fuzz_files.py NUMBER` does that one alone.
"""

import contextlib
import copy
import dataclasses
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
import saved_runs
import tiny
from saved_runs import CONFIG, SEEDS

import rljax
from rljax import analysis, networks, rollout, sweep
from rljax.cli import space, suite
from rljax.cli import sweep as sweep_flags
from rljax.cli import training as flags
from rljax.loggers import tables
from rljax.runs import checkpoints, directory, labels, records, settings, start
from rljax.runs.options import RunOptions
from rljax.search import brackets, samplers, training
from rljax.search import directory as search_directory
from rljax.search.store import Store
from rljax.sweep import directory as sweep_directory
from rljax.sweep import points as spaces
from rljax.sweep import report
from rljax.sweep.options import SweepOptions
from rljax.types import Metrics
from rljax.utils import atomic_io, verified

SECONDS = 20
"""After which a reader is taken to hang."""
MOST_BYTES = 2**30
OUTSIDE = ("/etc/passwd", "/dev/zero")


class HungError(BaseException):
    """No Exception, so that nobody takes it for something that a file did."""


# What is harmed


def make_run(path):
    """A run of two seeds with two checkpoints, which was resumed once."""
    saved_runs.make_run(path)
    network = networks.describe(CONFIG, rollout.make_env_and_network(CONFIG)[0].spec)
    record = {**directory.read_record(path), "network": network}
    atomic_io.write_json(path / "config.json", {**record, "resumed": [directory.provenance("cpu")]})


def make_sweep(path):
    """A sweep of two points with two seeds of which three trials are finished."""
    points = [{"gamma": g, "env_kwargs.sizes": [g, (1,)]} for g in (0.9, 0.99)]
    options = SweepOptions(seed=5, num_seeds=2, run_dir=path)
    made = dataclasses.asdict(sweep_flags.SpaceOptions(points=Path("points.json")))
    record = settings.record(settings.Settings("a2c", CONFIG, options, ()))
    record = {
        **record,
        "algorithm": "sweep",
        "run": {**record["run"], **made},
        **directory.provenance("cpu"),
        "points": [*map(spaces.recorded, points)],
    }
    directory.create(path, record)
    journal = sweep.Journal(path)
    trials = [trial for group in sweep.plan(CONFIG, points, SEEDS) for trial in group.trials]
    for some in (trials[:2], trials[2:3]):
        journal.add(_finished(some), 1.0, 2.0)
    atomic_io.write_json(path / "sweep.json", {"status": "running"})
    atomic_io.write_json(path / "points.json", record["points"])


def _finished(trials):
    ones = np.ones((2, len(trials)), np.float32)
    losses = dict.fromkeys(("loss", "policy_loss", "value_loss"), ones)
    updates = np.array([[10], [20]]).repeat(len(trials), 1)
    metrics = Metrics(updates, ones, ones, ones, losses, ones, ones, 0 * ones)
    return sweep.Result(trials, metrics, np.ones(len(trials)))


def make_search(path):
    """A search that was interrupted after the second rung of its second bracket."""
    given = {"learning_rate": sweep.log(1e-3, 1e-1), "hidden_sizes": [(8,), (4, 4)]}
    how = dict(seeds=range(3), eta=2, bracket=2, sampler="evolution", eval_episodes=0, quiet=True)
    write, rungs = Store.event, iter(range(100))

    def event(store, told):
        write(store, told)
        if told["event"] == "rung" and next(rungs) == 4:
            raise KeyboardInterrupt

    with mock.patch.object(Store, "event", event), contextlib.suppress(KeyboardInterrupt):
        sweep.search(tiny.CONFIG, given, 20_000, run_dir=path, **how)


# What reads it


class BegunError(Exception):
    """Something was wrong that should have been told before training."""


@contextlib.contextmanager
def begun():
    """What would be in the midst of training."""
    try:
        yield
    except Exception as error:
        raise BegunError(f"after it began: {error!r}") from error


def resume(path):
    asked = flags.parse("a2c", "", ["--resume", str(path)])
    if asked.config != CONFIG or asked.options.seeds != SEEDS:
        raise ValueError("not of these shapes")  # an environment or a network that is another one
    with start.resumed(asked, SHAPES, "cpu") as training, begun():
        if training:
            tables.append_metrics(path, [saved_runs._row(seed, 320) for seed in SEEDS])
            tables.read_metrics(path)


def draw(path):
    records, metrics = [directory.read_record(path)] * 2, tables.read_metrics(path)
    labels.of_runs([path] * 2, records)
    labels.title(records)
    analysis.learning_curve(metrics)
    analysis.without_return(metrics)


def summarise(path):
    """As a suite does with a run that is there already."""
    asked = settings.Settings("a2c", CONFIG, RunOptions(), ())
    options = suite.Options((path.name,), len(SEEDS), path.parent, seed=SEEDS[0])
    one = suite.Suite("a2c", {path.name: {}}, {"": {}})
    with mock.patch.object(settings, "start_from", return_value=asked):
        if suite._asked(one, options, path.name, "") is None:
            suite.table({path.name: {"": suite._summary(path)}})
            suite._caption(directory.read_record(path))


def resume_sweep(path):
    asked = sweep_flags.parse("", ["--resume", str(path)])
    options = asked.options
    groups = sweep.plan(asked.base, asked.points, options.seeds, options.algorithm, asked.own)
    checked = sweep_directory.Checked(groups, [], "cpu")
    with sweep_directory._opened(asked, checked) as (folder, journal, finals):
        sweep_directory.is_done(folder / "sweep.json")
        with begun():
            directory.warn_of_changes(asked.saved, directory.provenance("cpu"))
            follower = sweep_directory.Follower(asked, checked, folder, journal, None, 0.0)
            if finals is not None:
                follower.note(finals)
            atomic_io.json_bytes(follower.summary("running"))
            trials = [x for group in groups for x in group.trials if x.number not in journal.trials]
            if trials and finals is not None:
                journal.add(_finished(trials[:1]), 3.0, 4.0)
                report._records(analysis.rank(sweep.read(folder)))


def list_points(path):
    if (path / "points.json").is_fifo():
        raise ValueError("a pipe is allowed, and waited for")
    sweep.plan(CONFIG, space.listed(path / "points.json", 10), SEEDS)


def read_and_rank(path):
    table = sweep.read(path)
    if len(table):
        analysis.rank(table)
        analysis.learning_curve(table)
        analysis.scores(table, "point")


def resume_search(path):
    asked = brackets.settled(search_directory.search_of(path))
    with directory.lock(path):
        sampler = samplers.make("evolution", asked.axes, 0, path, None, None)
        state, store = brackets.State(asked, sampler), Store(path)
        store.replayed(state)
        for rungs in list(training._resumed(state, store)):
            with begun():
                rungs.list_jobs()


RUN_READERS = {
    "read_record": lambda path: records.read_config(directory.read_record(path)),
    "read_metrics": tables.read_metrics,
    "newest": checkpoints.newest,
    "load": rljax.load,
    "load best": lambda path: rljax.load(path, "best"),
    "load 160": lambda path: rljax.load(path, 160),
    "policy": lambda path: rljax.load(path).policy(greedy=True),
    "export": lambda path: rljax.load(path, "best").export_params(path / "p.safetensors", 6),
    "plot": draw,
    "page": lambda path: rljax.report.page([path], animated=False),
    "suite": summarise,
    "settings": settings.saved,
    "resume": resume,
}
SWEEP_READERS = {
    "sweep.read": read_and_rank,
    "sweep page": lambda path: rljax.report.page([path]),
    "journal": sweep.Journal,
    "resume sweep": resume_sweep,
    "points": list_points,
}


SEARCH_READERS = {
    "search page": lambda path: rljax.report.page([path]),
    "resume search": resume_search,
    "sweep.read": read_and_rank,
}

_OF_CHECKPOINTS = ["newest", "resume", "load", "policy", "load best", "export", "load 160"]
_OF_SWEEPS = ["sweep.read", "journal", "resume sweep", "sweep page"]
READERS_OF = {
    "config.json": ["read_record", "settings", "load", "policy", "plot", "suite", "resume", "page"],
    "metrics.csv": ["read_metrics", "load", "plot", "resume", "page"],
    "evaluations.csv": ["load", "resume", "page"],
    "summary.json": ["suite", "load", "resume", "page"],
    ".lock": ["resume"],
    "manifest.json": _OF_CHECKPOINTS,
    "state.safetensors": _OF_CHECKPOINTS,
    "best.safetensors": _OF_CHECKPOINTS,
}
"""Of a run."""
SWEEP_READERS_OF = {"points.json": ["points"]}
"""Of a sweep; all others read the whole."""
SEARCH_READERS_OF = {
    "results.csv": ["sweep.read", "search page"],
    "finished.jsonl": ["resume search"],
}
_OF_SEARCHES = ["resume search", "search page"]


# Harm


VALUES = [
    *(None, True, False, -1, 0, 1, 2**31, 2**64, 10**400, 0.5, -0.0, float("nan"), float("inf")),
    *("", "x", "../../secret", "/etc/passwd", "a\0b", "\ud800", "inf", "nan", "a\nb", "9" * 300),
    *("x" * 5000, "@deep@", "@objects@", "@huge@", "@infinite@", [], {}, [[]], ["a"], [1, "a"]),
    *({"a": 1}, {"tuple": 3}, {"float": "x"}, {"dict": [[1]]}, {"dict": [[[], 1]]}),
]
NAMES = ["", "x", "../../secret.safetensors", "/etc/passwd", "state.safetensors", "a\0.safetensors"]
NAMES += [
    "..",
    "learner/" * 2000,
    "\ud800.safetensors",
    "seeds",
    "bytes",
    "x" * 250 + ".safetensors",
    "sums/updates",
    "row/figures",
]
RAW = {
    '"@deep@"': "[" * 50_000 + "]" * 50_000,
    '"@objects@"': '{"a":' * 500 + "1" + "}" * 500,
    '"@huge@"': "1" + "0" * 5_000,
    '"@infinite@"': "-1e999",
}
CELLS = ["", "x", "-1", "0.5", "1e300", "nan", "inf", "-inf", '"', '"a\nb"', "\0", "9" * 400, "1_0"]
CELLS += ["é", " 5", "0x10", "x" * 200_000, ",", ",,,", "True", "None", "99999999999999999999"]


def harm_json(tree, rng):
    """One or a few places of a tree changed."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(tree))
        if not places or rng.random() < 0.02:
            return copy.deepcopy(rng.choice(VALUES))
        inner, key = rng.choice(places)
        what = rng.randrange(6)
        if what < 3:
            inner[key] = copy.deepcopy(rng.choice(VALUES))
        elif what == 3:
            del inner[key]
        elif what == 4 and isinstance(inner, dict):
            inner[rng.choice(NAMES)] = inner.pop(key)
        elif what == 4:
            inner.insert(rng.randrange(len(inner)), inner[key])
        else:
            other, place = rng.choice(places)
            with contextlib.suppress(IndexError, KeyError):
                inner[key] = json.loads(json.dumps(other[place]))
    return tree


def _places(tree):
    if not isinstance(tree, dict | list):
        return
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        yield from _places(value)


def text_of(tree, indent=None):
    text = json.dumps(tree, indent=indent)
    for mark, raw in RAW.items():
        text = text.replace(mark, raw)
    return text


def harm_csv(text, rng):
    rows = [line.split(",") for line in text.split("\n")]
    for _ in range(rng.choice((1, 1, 3))):
        row = rng.choice(rows)
        what = rng.randrange(5)
        if what < 3:
            row[rng.randrange(len(row))] = rng.choice(CELLS)
        elif what == 3:
            del row[rng.randrange(len(row)) :]
            row.append(rng.choice(CELLS))
        else:
            rows.insert(rng.randrange(len(rows)), list(rng.choice(rows)))
    return "\n".join(",".join(row) for row in rows)


def harm_arrays(data, rng):
    """The header of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    if rng.random() < 0.2:
        length = rng.choice((0, 1, length - 1, length + 1, 2**31, 2**40, 2**63, 2**64 - 1))
        return length.to_bytes(8, "little") + header + rest
    header = text_of(harm_json(json.loads(header), rng)).encode(errors="surrogatepass")
    return len(header).to_bytes(8, "little") + header + rest


def harm_bytes(data, others, rng):
    at, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    other = rng.choice(others)
    flipped = bytearray(data)
    for _ in range(rng.choice((1, 1, 8, 64)) * bool(data)):
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return rng.choice(
        (
            data[:at],
            data[:at] + data[end:],
            data[:end] + data[at:],
            data[:at] + other[rng.randrange(len(other) + 1) :],
            data[:at] + rng.randbytes(rng.choice((1, 20, 500))) + data[at:],
            data[:at] + b"\0" * 100 + data[at:],
            data[:at] + b"\n" + data[at:],
            b"\xef\xbb\xbf" + data,
            data.decode("latin-1").encode("utf-16"),
            data + data,
            other,
            b"",
            b"[" * 100_000,
            bytes(flipped),
            bytes(flipped),
            bytes(flipped),
        )
    )


def put_in_place(path, rng):
    """Something that is no file; says what."""
    path.unlink()
    what = rng.choice(("nothing", "folder", "pipe", "loop", "zeros", "sparse", "elsewhere"))
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "loop":
        path.symlink_to(path)
    elif what == "zeros":
        path.symlink_to("/dev/zero")
    elif what == "sparse":
        path.touch()
        os.truncate(path, 3 * 2**30)
    elif what == "elsewhere":
        path.symlink_to("nowhere")
    return what


def harm(folder, number):
    """Harms a copy of a run or a sweep; says which file, and what it did."""
    rng = random.Random(number)
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    path, others = rng.choice(found), [path.read_bytes() for path in found]
    name, data = str(path.relative_to(folder)), path.read_bytes()
    what = rng.random()
    if what < 0.1:
        return name, f"{put_in_place(path, rng)} in its place"
    kind = {".json": "json", ".jsonl": "lines", ".csv": "csv", ".safetensors": "arrays"}
    kind = kind.get(path.suffix) if what < 0.75 else None
    if kind == "json":
        tree = harm_json(json.loads(data), rng)
        text = text_of(tree, indent=1)
        if path.name == "manifest.json" and text.endswith("\n}") and rng.random() < 0.8:
            begin = text[:-2].rpartition(',\n "sha256": "')[0] or text[:-2]
            path.write_bytes(checkpoints._with_sum(begin.encode(errors="surrogatepass")))
            return name, "JSON, sealed"
        path.write_bytes(text.encode(errors="surrogatepass"))
        return name, "JSON"
    if kind == "lines":
        lines = data.splitlines()
        i = rng.randrange(len(lines))
        lines[i] = text_of(harm_json(json.loads(lines[i]), rng)).encode(errors="surrogatepass")
        path.write_bytes(b"\n".join(lines) + b"\n")
    elif kind == "csv":
        path.write_bytes(harm_csv(data.decode(), rng).encode())
    elif kind == "arrays":
        path.write_bytes(harm_arrays(data, rng))
    else:
        path.write_bytes(harm_bytes(data, others, rng))
    is_sealed = rng.random() < 0.7
    if is_sealed:
        seal(folder)
    return name, f"{kind or 'bytes'}{', sealed' * is_sealed}"


def seal(folder):
    """Makes every sum that is kept somewhere that of what is there."""
    wrong = ValueError, KeyError, TypeError, AttributeError, RecursionError
    for path in folder.glob("checkpoints/*/manifest.json"):
        with contextlib.suppress(*wrong, OSError):  # also where the name of a file was harmed
            facts = json.loads(path.read_bytes())
            for marks, there in ((facts["files"], path.parent), (facts["tables"], folder)):
                for name in marks:
                    marks[name] = verified.mark((there / name).read_bytes())
            del facts["sha256"]
            path.write_bytes(checkpoints._seal(facts))
    journal = folder / "finished.jsonl"
    if journal.is_file():
        with contextlib.suppress(ValueError, KeyError, TypeError, IndexError, RecursionError):
            lines = journal.read_bytes().splitlines()
            last = json.loads(lines[-1]) | verified.mark((folder / "results.csv").read_bytes())
            journal.write_bytes(b"\n".join([*lines[:-1], json.dumps(last).encode()]) + b"\n")


# The guard


class Touched:
    """What Python opens, renames and removes, told by the interpreter itself."""

    def __init__(self):
        self.allowed, self.outside = None, []
        sys.addaudithook(self.hook)

    def hook(self, event, arguments):
        if self.allowed and event in (
            "open",
            "os.rename",
            "os.remove",
            "os.truncate",
            "os.listdir",
        ):
            for path in arguments[: 2 if event == "os.rename" else 1]:
                if isinstance(path, str | bytes | os.PathLike):
                    path = os.path.abspath(os.fsdecode(path))
                    around = str(self.allowed.parent)
                    is_inside = os.path.commonpath([path, self.allowed]) == str(self.allowed)
                    if path in OUTSIDE or (path.startswith(around) and not is_inside):
                        self.outside.append(path)


def _hung(*_):
    raise HungError(f"took more than {SECONDS} s")


@contextlib.contextmanager
def guarded(folder):
    TOUCHED.allowed, TOUCHED.outside = folder, []
    before = signal.signal(signal.SIGALRM, _hung)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        TOUCHED.allowed = None


def memory(name):
    """Of this process, in bytes: "VmRSS" now, or "VmHWM" the most since `forget_peak`."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
    return 1024 * int(line.split()[1])


def forget_peak():
    Path("/proc/self/clear_refs").write_text("5")


class Whole(NamedTuple):
    run: Path
    sweep: Path
    search: Path


READERS = {
    "run": (RUN_READERS, READERS_OF, _OF_CHECKPOINTS),
    "sweep": (SWEEP_READERS, SWEEP_READERS_OF, _OF_SWEEPS),
    "search": (SEARCH_READERS, SEARCH_READERS_OF, _OF_SEARCHES),
}
"""Of each: all readers, those of a file, and those of all other files."""


def make_whole(folder):
    global SHAPES, TOUCHED
    SHAPES, TOUCHED = saved_runs.shapes(CONFIG), Touched()
    make_run(folder / "run")
    make_sweep(folder / "sweep")
    make_search(folder / "search")
    return Whole(folder / "run", folder / "sweep", folder / "search")


def try_case(whole, number, scratch):
    """What is wrong with what two readers make of a case, in words, or nothing."""
    which = random.Random(-number - 1).random()
    kind = "run" if which < 0.6 else "sweep" if which < 0.8 else "search"
    source, (readers, of_file, of_others) = getattr(whole, kind), READERS[kind]
    wrong = []
    for i in range(2):
        folder = scratch / "a" / "b" / source.name
        shutil.copytree(source, folder)
        file, what = harm(folder, number)
        names = of_file.get(Path(file).name, of_others)
        name = names[(number + i) % len(names)]
        error = _try(readers[name], folder)
        wrong += [f"case {number} ({file}: {what}), {name}: {error}"] * bool(error)
        shutil.rmtree(scratch / "a")
    return wrong


def _try(read, folder):
    before = memory("VmRSS")
    forget_peak()
    found = None
    try:
        with guarded(folder):
            read(folder)
    except (ValueError, TypeError, atomic_io.WriteError) as error:
        if len(str(error).splitlines()) != 1:
            found = f"not one line: {str(error)!r}"
    except (Exception, HungError) as error:
        found = f"{type(error).__name__}: {error}"
    if TOUCHED.outside:
        found = f"touched {TOUCHED.outside}"
    if memory("VmHWM") - before > MOST_BYTES:
        found = "took more than 1 GB"
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_whole(tmp_path_factory.mktemp("whole"))


def test_what_is_whole_is_read(whole, tmp_path):
    """Else the fuzzer would find nothing wrong in readers that refuse all."""
    for source, readers in zip(whole, (RUN_READERS, SWEEP_READERS, SEARCH_READERS)):
        for name, read in readers.items():
            folder = Path(shutil.copytree(source, tmp_path / name.replace(" ", "_") / source.name))
            with guarded(folder):
                read(folder)
            assert TOUCHED.outside == [], name


@pytest.mark.parametrize("part", [pytest.param(range(150), id="150")])
def test_harm_is_told_in_one_line(whole, tmp_path, part):
    wrong = [line for number in part for line in try_case(whole, number, tmp_path)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 3000, 500))
def test_much_harm_is_told_in_one_line(whole, tmp_path, first):
    test_harm_is_told_in_one_line(whole, tmp_path, range(first, first + 500))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        whole_of_it = make_whole(Path(scratch) / "whole")
        for case in map(int, sys.argv[1:]):
            print(*try_case(whole_of_it, case, Path(scratch) / "copies"), sep="\n")
