"""Elements of a page, escaped by the standard library."""

from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any
from xml.etree import ElementTree

Element = ElementTree.Element


def tag(name: str, /, *children: Any, **attributes: Any) -> Element:
    """An element. Children are elements, text, lists of them, or None, which is left out; so are
    attributes of None. `class_` is written as class, other underscores as hyphens."""
    named = {key.rstrip("_").replace("_", "-"): x for key, x in attributes.items()}
    element = Element(name, {key: str(x) for key, x in named.items() if x is not None})
    for child in children:
        _add(element, child)
    return element


def _add(element, child):
    if child is None:
        return
    if isinstance(child, Element):
        element.append(child)
    elif isinstance(child, str):
        last = element[-1] if len(element) else None
        if last is None:
            element.text = (element.text or "") + child
        else:
            last.tail = (last.tail or "") + child
    else:
        for one in child:
            _add(element, one)


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], **attributes: Any) -> Element:
    """A table that can be scrolled where the page is narrow; the first cell of a row is its
    header. Texts that begin with a digit or a hyphen are set as numbers."""
    body = [tag("tr", [_cell(x, i == 0) for i, x in enumerate(row)]) for row in rows]
    top = tag("thead", tag("tr", [tag("th", name, scope="col") for name in head])) if head else None
    return tag("div", tag("table", top, tag("tbody", body), **attributes), class_="scroll")


def _cell(content, is_first):
    is_number = isinstance(content, str) and content[:1] in set("0123456789-")
    is_short = is_first and isinstance(content, str) and len(content) < 24
    name, scope = ("th", "row") if is_first else ("td", None)
    look = "number" if is_number else "short" if is_short else None
    return tag(name, content, scope=scope, class_=look)


def folded(summary: str, *content: Any, is_open: bool = False) -> Element:
    """What is shown on a click, and in print."""
    return tag("details", tag("summary", summary), content, open="" if is_open else None)


def document(title: str, *content: Any) -> str:
    """A whole page with style and script in it; it loads nothing."""
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),  # or a browser asks for one
        tag("style", _file("page.css")),
    ]
    body = tag("body", tag("main", content), tag("script", _file("page.js")))
    page = tag("html", tag("head", head), body, lang="en")
    return "<!doctype html>\n" + ElementTree.tostring(page, "unicode", method="html") + "\n"


def _file(name):
    return (resources.files(__package__) / name).read_text("utf-8")
