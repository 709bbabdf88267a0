"""HTML and SVG that cannot be broken by what is put into them: text is escaped, always, unless it is markup already."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

__all__ = ["Child", "Html", "el", "join", "raw"]

_VOID: Final = frozenset({"br", "col", "meta"})


class Html(str):
    """Markup, as opposed to text."""

    __slots__ = ()


Child = str | Html | None | Iterable["Child"]


def raw(markup: str) -> Html:
    """Take ``markup`` as it is: only for what this package itself has written."""
    return Html(markup)


def el(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """Return an element; ``class_`` is the attribute ``class``, ``data_x`` is ``data-x``, ``None`` leaves one out."""
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Html:
    """Return all ``children``, one after the other."""
    return Html("".join(map(_markup, children)))


def _markup(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, str):
        return escape(_printable(child))
    return join(child)


def _attribute(key: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-") if key not in {"viewBox", "preserveAspectRatio"} else key
    return f" {name}" if value is True else f' {name}="{escape(_printable(str(value)))}"'


def _printable(text: str) -> str:
    """Replace what no HTML file may hold: control characters, and halves of surrogate pairs."""
    return "".join("\ufffd" if (ord(c) < 32 and c not in "\t\n\r") or 0xD800 <= ord(c) < 0xE000 else c for c in text)
