"""Shows the progress of a run or a sweep: live on a terminal or in a notebook, else in lines, of
text or of JSON."""

import io
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rljax.utils import atomic_io

EVALUATION_EVERY = 10.0  # seconds between two lines on an evaluation, without a live display
SHOWN_EVERY = 0.5  # seconds between two pictures of a live display
BAR = 28  # columns of the progress bar
NOTEBOOK_BAR = 14  # where everything is on one line of 110
NOTHING = MappingProxyType({})
WIDE = 120  # columns of a terminal on which all fits one line


class Display:
    """Live on a terminal or in a notebook, lines elsewhere, nothing if quiet. A context. Steps are
    environment steps over all seeds. `log_format`: "plain" for lines everywhere, "json" for one
    JSON object in each, with its "event": begin, phase, progress, evaluation, summary."""

    def __init__(self, title: str, done: int, total: int, quiet: bool, log_format: str = "auto"):
        self.console = Console(quiet=quiet, highlight=False, markup=False, emoji=False)
        self.is_json = log_format == "json"
        self._tell(title, "begin", title=title, env_steps=done, total_env_steps=total)
        self.done, self.total, self.steps = done, total, done
        self.reported, self.start = 10 * done // total, None
        self.phase_name, self.text, self.below = "", "", ""
        self._begin("compiling")
        self.shown_at, self.status = -SHOWN_EVERY, None
        self.evaluation_due = _every(EVALUATION_EVERY)
        self.live = None if quiet or log_format != "auto" else _live(self)
        if not self.live:
            self._tell(self.phase_name, "phase", phase=self.phase_name)

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *exception):
        self.stop()

    def stop(self) -> None:
        """Ends the live display; what was shown stays."""
        if self.live:
            self._show(at_once=True)
            self.live.stop()

    def update(
        self, steps: int, speed: float, more: Mapping[str, float] = NOTHING, below: str = ""
    ) -> None:
        """Shows the progress after a chunk: environment steps, steps per second, further numbers
        by name, and text."""
        numbers = [f"{name} {x:,.2f}" for name, x in more.items()]
        parts = (f"{steps:,}/{self.total:,} env steps", f"{speed:,.0f} steps/s", *numbers)
        self.text = " · ".join(parts)
        self.steps = steps
        self._begin("training")
        self.below = below or self.below
        self.start = self.start or time.perf_counter()
        self._show()
        tenth = 10 * steps // self.total
        if not self.live and tenth > self.reported:
            self.reported = tenth
            text = f"{10 * tenth:3d}% · {self.text}" + f" · {below}" * bool(below)
            facts = dict(env_steps=steps, total_env_steps=self.total, steps_per_second=speed)
            facts |= {**more, "eta_seconds": self._eta()} | ({"status": below} if below else {})
            self._tell(f"{text} · ETA {self._eta():.0f} s", "progress", **facts)

    def phase(self, name: str) -> None:
        """Shows what is done now, besides training."""
        self._begin(name)
        self._show(at_once=True)
        if not self.live:
            self._tell(name, "phase", phase=name)

    def result(self, summary: Mapping, show: Callable[[Any], None]) -> None:
        """Ends with a summary, which `show` prints to a console."""
        if self.is_json:
            self._tell("", "summary", **summary)
        else:
            show(self.console)

    def _begin(self, phase):
        if phase != self.phase_name:
            self.phase_name, self.phase_start = phase, time.perf_counter()

    def _tell(self, text, event, **facts):
        """A line."""
        if self.is_json:
            text = atomic_io.json_bytes({"event": event, **facts}).decode().rstrip()
        self.console.print(text, soft_wrap=True)

    def evaluating(self, ended: int, episodes: int, steps: int) -> None:
        """Shows the progress of an evaluation, between its steps."""
        if self.live:
            self._begin("evaluating")
            self.text = _evaluation(ended, episodes, steps)
            self._show()
        elif self.evaluation_due(steps == 0):
            facts = dict(episodes_ended=ended, episodes=episodes, env_steps=steps)
            self._tell(f"evaluating: {_evaluation(ended, episodes, steps)}", "evaluation", **facts)

    def watch(self, label: str, status: Any) -> None:
        """Shows a table below the progress, such as of A3C's workers, from the method
        `table(before, seconds)` of a status, as `a3c.Status` has it."""
        now = time.perf_counter()
        if self.live and self.status and label == self.status[0]:
            _, at, before = self.status
            if now - at < 0.9:
                return
            self.below = _table(label, *status.table(before, now - at))
        self.status = label, now, status

    def _time(self):
        """How long training will take, or how long anything else has taken already."""
        if self.phase_name != "training":
            return f"for {time.perf_counter() - self.phase_start:.0f} s"
        return f"ETA {self._eta():.0f} s" if self.start and self.steps < self.total else ""

    def _eta(self):
        seconds = time.perf_counter() - (self.start or time.perf_counter())
        return seconds * (self.total - self.steps) / max(1, self.steps - self.done)

    def _show(self, at_once=False):
        now = time.perf_counter()
        if self.live and (at_once or now - self.shown_at >= SHOWN_EVERY):
            self.shown_at = now
            self.live.refresh()

    def __rich__(self):
        """The picture: progress, and what stands below it."""
        share = self.steps / self.total
        size = BAR if self.console.is_terminal else NOTEBOOK_BAR
        bar = "━" * round(size * share) + " " * (size - round(size * share))
        head = f"{self.phase_name:<10} {bar} {share:4.0%} "
        if self.console.is_terminal and self.console.width < WIDE:
            lines = [head + self._time(), self.text]
        else:
            lines = [head + " · ".join(filter(None, (self.text, self._time())))]
        if self.below and isinstance(self.below, str):
            lines += _fitting(self.below, self.console.width)
        lines = [Text(line, no_wrap=True, overflow="ellipsis") for line in lines]
        # In a group even if it is alone: text that is printed by itself is wrapped.
        return Group(*lines, *([self.below] if isinstance(self.below, Group) else []))


def _fitting(text, width):
    """One line or, where it is too long, the last part on a line of its own."""
    return [text] if len(text) <= width else text.rsplit(" · ", 1)


def evaluation_lines(tell: Callable[[str], None]) -> Callable[[int, int, int], None]:
    """A function (ended, episodes, steps) that tells of a long evaluation, line by line."""
    is_due = _every(EVALUATION_EVERY)

    def show(ended, episodes, steps):
        if is_due(steps == 0):
            tell(f"evaluating: {_evaluation(ended, episodes, steps)}")

    return show


def _every(seconds):
    """A function of whether something has just begun, which is true once in so many seconds."""
    told_at = 0.0

    def is_due(begins):
        nonlocal told_at
        now = time.perf_counter()
        if begins:
            told_at = now
        elif now - told_at >= seconds:
            told_at = now
            return True
        return False

    return is_due


def _evaluation(ended, episodes, steps):
    return f"{ended:,}/{episodes:,} episodes · {steps:,} steps"


def _live(display):
    """What shows the display anew; None where there is neither a terminal nor a notebook."""
    if display.console.is_jupyter:
        return _Notebook(display)
    if not display.console.is_terminal:
        return None
    live = Live(get_renderable=display.__rich__, console=display.console)
    live.start()
    return live


class _Notebook:
    """One output that is replaced; rich's own `Live` needs ipywidgets."""

    def __init__(self, display):
        from IPython.display import display as show

        self.display = display
        self.handle = show({"text/plain": display.phase_name}, raw=True, display_id=True)

    def refresh(self):
        plain = dict(force_jupyter=False, force_terminal=False, highlight=False)
        console = Console(file=io.StringIO(), width=110, **plain)
        console.print(self.display)
        self.handle.update({"text/plain": console.file.getvalue().rstrip()}, raw=True)

    def stop(self):
        pass


def _table(label, columns, rows, below):
    table = Table(box=None, padding=(0, 2), title=label or None, title_justify="left")
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i in (0, len(columns) - 1) else "right")
    for row in rows:
        table.add_row(*row)
    return Group(table, Text(below))
