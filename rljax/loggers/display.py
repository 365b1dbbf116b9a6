"""Shows the progress of a run or a sweep: live on a terminal or in a notebook, else in lines."""

import time
from collections.abc import Callable
from typing import Any

EVALUATION_EVERY = 10.0
"""Seconds between two lines on an evaluation, where there is no live display."""
NOTEBOOK_EVERY = 0.5
"""Seconds between two pictures in a notebook."""
BAR = 28
WIDE = 120
"""Columns of a terminal on which all fits one line."""


class Display:
    """Live on a terminal or in a notebook, lines elsewhere, nothing if quiet. A context."""

    def __init__(self, title: str, done: int, total: int, quiet: bool):
        """
        Args:
            done, total: environment steps over all seeds.
        """
        from rich.console import Console

        self.console = Console(quiet=quiet, highlight=False, markup=False, emoji=False)
        self.console.print(title, soft_wrap=True)
        self.done, self.total, self.steps = done, total, done
        self.reported, self.start = 10 * done // total, None
        self.phase_name, self.text, self.below = "compiling", "", None
        self.shown_at, self.status = -NOTEBOOK_EVERY, None
        self.evaluation_lines = EvaluationLines(self.console.print)
        self.live = None if quiet else _live(self)
        if not self.live:
            self.console.print(self.phase_name)

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *exception):
        self.stop()

    def stop(self) -> None:
        """Ends the live display; what was shown stays."""
        if self.live:
            self._show(at_once=True)
            self.live.stop()

    def update(self, steps: int, speed: float, more: str = "", below: str = "") -> None:
        """After a chunk: environment steps, steps per second, and what else there is to say."""
        self.text = " · ".join(
            filter(None, (f"{steps:,}/{self.total:,} env steps", f"{speed:,.0f} steps/s", more))
        )
        self.steps, self.phase_name = steps, "training"
        self.below = below or self.below
        self.start = self.start or time.perf_counter()
        self._show()
        tenth = 10 * steps // self.total
        if not self.live and tenth > self.reported:
            self.reported = tenth
            text = f"{10 * tenth:3d}% · {self.text}" + f" · {below}" * bool(below)
            self.console.print(f"{text} · ETA {self._eta():.0f} s", soft_wrap=True)

    def phase(self, name: str) -> None:
        """What is done now, beside training."""
        self.phase_name = name
        self._show(at_once=True)
        if not self.live:
            self.console.print(name)

    def evaluating(self, ended: int, episodes: int, steps: int) -> None:
        """Between the steps of an evaluation."""
        if self.live:
            self.phase_name, self.text = "evaluating", _evaluation(ended, episodes, steps)
            self._show()
        else:
            self.evaluation_lines.show(ended, episodes, steps)

    def watch(self, label: str, status: Any) -> None:
        """A table below the progress, such as of A3C's workers.

        Args:
            label: its title.
            status: with a method `table(before, seconds)`, as `a3c.Status`.
        """
        now = time.perf_counter()
        if self.live and self.status and label == self.status[0]:
            _, at, before = self.status
            if now - at < 0.9:
                return
            self.below = _table(label, *status.table(before, now - at))
        self.status = label, now, status

    def _eta(self):
        seconds = time.perf_counter() - (self.start or time.perf_counter())
        return seconds * (self.total - self.steps) / max(1, self.steps - self.done)

    def _show(self, at_once=False):
        if self.live:
            self.live.show(at_once)

    def __rich__(self):
        """The picture: progress, and what stands below it."""
        from rich.console import Group
        from rich.text import Text

        share = self.steps / self.total
        eta = f"ETA {self._eta():.0f} s" if self.start and self.steps < self.total else ""
        bar = "━" * round(BAR * share) + " " * (BAR - round(BAR * share))
        head = f"{self.phase_name:<10} {bar} {share:4.0%} "
        if self.console.is_terminal and self.console.width < WIDE:
            lines = [head + eta, self.text]
        else:
            lines = [head + " · ".join(filter(None, (self.text, eta)))]
        lines = [Text(line, no_wrap=True, overflow="ellipsis") for line in lines]
        # In a group even if it is alone: text that is printed by itself is wrapped.
        return Group(*lines, *([self.below] if self.below else []))


class EvaluationLines:
    """Tells of an evaluation that takes long, line by line."""

    def __init__(self, tell: Callable[[str], None]):
        self.tell, self.told_at = tell, 0.0

    def show(self, ended: int, episodes: int, steps: int) -> None:
        """Between the steps of an evaluation."""
        now = time.perf_counter()
        if steps == 0:
            self.told_at = now
        elif now - self.told_at >= EVALUATION_EVERY:
            self.told_at = now
            self.tell(f"evaluating: {_evaluation(ended, episodes, steps)}")


def _evaluation(ended, episodes, steps):
    return f"{ended:,}/{episodes:,} episodes · {steps:,} steps"


def _live(display):
    """What shows the display anew; None where there is neither a terminal nor a notebook."""
    if display.console.is_jupyter:
        return _Notebook(display)
    return _Terminal(display) if display.console.is_terminal else None


class _Terminal:
    def __init__(self, display):
        from rich.live import Live

        self.live = Live(get_renderable=display.__rich__, console=display.console)
        self.live.start()

    def show(self, at_once):
        if at_once:
            self.live.refresh()

    def stop(self):
        self.live.stop()


class _Notebook:
    """One output that is replaced; rich's own asks for ipywidgets."""

    def __init__(self, display):
        from IPython.display import display as show

        self.display = display
        self.handle = show({"text/plain": ""}, raw=True, display_id=True)

    def show(self, at_once):
        now, display = time.perf_counter(), self.display
        if at_once or now - display.shown_at >= NOTEBOOK_EVERY:
            display.shown_at = now
            self.handle.update({"text/plain": _as_text(display)}, raw=True)

    def stop(self):
        pass


def _as_text(picture):
    import io

    from rich.console import Console

    settings = dict(force_jupyter=False, force_terminal=False, highlight=False)
    console = Console(file=io.StringIO(), width=110, **settings)
    console.print(picture)
    return console.file.getvalue().rstrip()


def _table(label, columns, rows, below):
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2), title=label or None, title_justify="left")
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i in (0, len(columns) - 1) else "right")
    for row in rows:
        table.add_row(*row)
    return Group(table, Text(below))
