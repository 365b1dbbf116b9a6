"""The display of a run: lines, a terminal, a notebook; and a table of workers."""

import io
import json
import re

import nbclient
import nbformat
import numpy as np
import pytest
import rich.console
import rich.live

from rljax.a3c import counts, messages, supervisor
from rljax.loggers import display


class Clock:
    """Of the display: a second more each time."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        self.now += 1.0
        return self.now


class Notebook:
    """What IPython's display is given: the outputs made, and what each was replaced by."""

    def __init__(self):
        self.made, self.shown = [], []

    def display(self, data, raw, display_id):
        assert (raw, display_id) == (True, True)
        self.made.append(data)
        return self

    def update(self, data, raw):
        assert raw
        self.shown.append(data["text/plain"])


@pytest.fixture
def notebook(monkeypatch):
    import IPython.display

    found = Notebook()
    monkeypatch.setattr(IPython.display, "display", found.display)
    monkeypatch.setattr(display, "_live", display._Notebook)
    monkeypatch.setattr(display, "time", Clock())
    return found


def test_a_notebook_has_one_output_that_is_replaced_and_fits(notebook):
    """Text as wide as a cell, without escapes and without wrapped lines."""
    with display.Display("title", 0, 1_000_000_000, quiet=False) as progress:
        for steps in range(100_000_000, 1_000_000_001, 100_000_000):
            progress.update(steps, 12345678.9, {"return": 1234.56})
        progress.watch("seed 3", status(0, 0))
        progress.watch("seed 3", status(400, 3))
        progress.phase("evaluating")
        progress.evaluating(2, 100, 60)
    shown = notebook.shown
    assert len(notebook.made) == 1
    assert len(shown) > 10
    assert all("\x1b" not in text for text in shown)
    assert max(len(line) for text in shown for line in text.splitlines()) <= 110
    assert all(len(text.splitlines()) == 1 for text in shown[:10])
    assert "training" in shown[0]
    assert "100,000,000/1,000,000,000 env steps · 12,345,679 steps/s" in shown[0]
    assert "10%" in shown[0]
    assert "100%" in shown[9]
    first, *below = shown[-1].splitlines()
    assert "evaluating" in first
    assert "2/100 episodes · 60 steps" in first
    assert ["seed", "3"] in [line.split() for line in below]


def test_a_notebook_is_not_drawn_too_often(notebook, monkeypatch):
    """Every half second at the most, and at the end."""
    monkeypatch.setattr(display.time, "perf_counter", lambda: 100.0)
    with display.Display("title", 0, 1000, quiet=False) as progress:
        for steps in range(100, 1001, 100):
            progress.update(steps, 1.0)
        assert len(notebook.shown) == 1
    assert len(notebook.shown) == 2
    assert "1,000/1,000 env steps" in notebook.shown[-1]


def test_rich_tells_a_notebook_and_a_terminal_from_the_rest():
    def live(**how):
        shown = display.Display("title", 0, 100, quiet=True)
        shown.console = rich.console.Console(file=io.StringIO(), **how)
        return display._live(shown)

    assert live() is None
    terminal = live(force_terminal=True)
    terminal.stop()
    assert type(terminal) is rich.live.Live
    assert type(live(force_jupyter=True)) is display._Notebook


def test_a_narrow_terminal_has_no_wrapped_lines(monkeypatch):
    """What does not fit is on a line of its own, or cut."""
    monkeypatch.setattr(display, "time", Clock())
    shown = display.Display("title", 0, 1000, quiet=True)
    shown.update(500, 1.0, below=f"group 2/3 · 5/9 trials · best so far 1.00 at {'x' * 60}")
    shown.console = rich.console.Console(file=io.StringIO(), force_terminal=True, width=60)
    shown.console.print(shown)
    text = shown.console.file.getvalue()
    first, second, third, fourth = rich.text.Text.from_ansi(text).plain.splitlines()
    assert first.startswith("training")
    assert "50%" in first
    assert second.startswith("500/1,000 env steps")
    assert third == "group 2/3 · 5/9 trials"
    assert fourth == f"best so far 1.00 at {'x' * 39}…"


def test_what_is_no_training_tells_how_long_it_has_taken(monkeypatch):
    monkeypatch.setattr(display, "time", Clock())  # a second at each look
    shown = display.Display("title", 0, 1000, quiet=True)
    console = rich.console.Console(file=io.StringIO(), force_terminal=True, width=80)
    shown.console = console
    for _ in range(3):
        console.print(shown)
    lines = console.file.getvalue().splitlines()
    assert [line.split("0% ")[1] for line in lines[::2]] == ["for 1 s", "for 2 s", "for 3 s"]


@pytest.mark.slow
def test_a_run_in_a_real_notebook(tmp_path, monkeypatch):
    """One output for the progress, whatever it showed; the run shows its curve."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    code = (
        "import rljax\n"
        "run = rljax.train('a2c', 'CartPole-v1', total_timesteps=20_000, num_seeds=2,"
        " eval_episodes=5)"
    )
    cells = [nbformat.v4.new_code_cell(text) for text in (code, "run.plot()", "run.status")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    settings = dict(timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    nbclient.NotebookClient(notebook, **settings).execute()
    outputs = notebook.cells[0].outputs
    assert not [o for o in outputs if o.get("name") == "stderr"]
    texts = [o.get("data", {}).get("text/plain", "") for o in outputs]
    (picture,) = [text for text in texts if text.startswith(("training ", "evaluating "))]
    assert f" {'━' * display.NOTEBOOK_BAR} 100%" in picture
    assert "image/png" in notebook.cells[1].outputs[0]["data"]
    assert notebook.cells[2].outputs[0]["data"]["text/plain"] == "'completed'"


def status(applied, stale):
    """Of two workers, one of which works by now."""
    nothing = np.zeros(len(messages.PHASES))
    worker = supervisor.WorkerStatus("working", 1000, 12, 34.5, 2, 0, nothing)
    fresh = supervisor.WorkerStatus("restarting", 0, 0, float("nan"), 0, 1, nothing)
    now = counts.no_counts()._replace(applied=applied, stale=stale)
    return supervisor.Status([worker if applied else fresh, fresh], now, 1.5)


def test_a_terminal_has_a_line_for_each_worker(monkeypatch):
    times = iter([0.0, 2.0, 2.5])  # two seconds later, and too soon for a change
    shown = display.Display("title", 0, 100, quiet=True)
    shown.live = True
    monkeypatch.setattr(display.time, "perf_counter", lambda: next(times))
    for applied, stale in ((0, 0), (400, 3), (900, 9)):
        shown.watch("seed 3", status(applied, stale))
    console = rich.console.Console(file=io.StringIO(), force_terminal=True, width=100)
    console.print(shown.below)
    lines = [
        re.sub(r"\x1b\[[\d;]*m", "", line).split() for line in console.file.getvalue().splitlines()
    ]
    assert ["seed", "3"] in lines
    assert ["worker", "0", "500", "12", "34.5", "2", "working"] in lines
    assert ["worker", "1", "0", "0", "restarting,", "1", "restart"] in lines
    assert "holder 200 gradients/s · queue 1.5 · version 400 · 3 rejected".split() in lines


def test_lines_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(display, "EVALUATION_EVERY", 0.0)
    with display.Display("A2C on [it]", 0, 1000, quiet=False) as progress:
        for steps in range(50, 1001, 50):
            progress.update(steps, 1234.5, {"return": 1.0})
        progress.phase("evaluating")
        progress.evaluating(0, 3, 0)
        progress.evaluating(2, 3, 60)
        progress.watch("seed 3", status(400, 3))
    title, compiling, *tenths, evaluating, line = capsys.readouterr().out.splitlines()
    assert (title, compiling, evaluating) == ("A2C on [it]", "compiling", "evaluating")
    assert line == "evaluating: 2/3 episodes · 60 steps"
    assert len(tenths) == 10
    assert tenths[0].startswith(" 10% · 100/1,000 env steps · 1,234 steps/s · return 1.00 · ETA ")


def test_nothing_where_it_is_quiet(capsys):
    with display.Display("title", 0, 1000, quiet=True) as progress:
        progress.update(1000, 1.0)
        progress.phase("evaluating")
        progress.evaluating(2, 3, 60)
    assert capsys.readouterr() == ("", "")


def test_json_is_one_object_in_each_line(capsys):
    with display.Display("title", 0, 1000, quiet=False, log_format="json") as progress:
        progress.update(100, 50.0, {"return": 1.5})
        progress.update(150, 50.0, {"return": float("nan")}, below="so far")
        progress.update(200, 50.0, {"return": float("nan")}, below="so far")
        progress.phase("evaluating")
        progress.result({"status": "completed", "final": np.float32(2.0)}, show=None)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.pop("event") for line in lines] == [
        *("begin", "phase", "progress", "progress", "phase", "summary")
    ]
    begin, compiling, first, second, _, summary = lines
    assert begin == {"title": "title", "env_steps": 0, "total_env_steps": 1000}
    assert compiling == {"phase": "compiling"}
    assert first.pop("eta_seconds") >= 0
    assert first == {
        "env_steps": 100,
        "total_env_steps": 1000,
        "steps_per_second": 50.0,
        "return": 1.5,
    }
    assert (second["return"], second["status"]) == ("nan", "so far")
    assert summary == {"status": "completed", "final": 2.0}


def test_plain_lines_are_told_on_a_terminal_too(monkeypatch, capsys):
    monkeypatch.setattr(display, "_live", lambda shown: pytest.fail("it is live"))
    with display.Display("title", 0, 1000, quiet=False, log_format="plain") as progress:
        progress.update(500, 50.0)
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["title", "compiling"]
    assert told[2].startswith(" 50% · 500/1,000 env steps · 50 steps/s · ETA")
