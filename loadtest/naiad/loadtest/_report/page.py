"""The frame of every page: one file that needs nothing else, and may ask for nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from naiad.loadtest._report.content import dump
from naiad.loadtest._report.html import Child, Html, el, raw

__all__ = ["created", "page"]

DATA_ID: Final = "content"


def page(
    *,
    title: str,
    subtitle: str,
    version: str,
    links: Sequence[tuple[str, str]],
    content: Child,
    data: Mapping[str, Any] | None = None,
) -> str:
    """Return a whole page; ``links`` are (id, name) of its parts, ``data`` is what it was made from.

    The policy in its head allows this very script and inline styles, and nothing from anywhere.
    """
    script, style = _resource("page.js"), _resource("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sources = f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    policy = f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="generator", content=f"naiad {version}"),
        el("title", title),
        el("style", raw(style)),
    )
    body = el(
        "body",
        el(
            "header",
            el("h1", title),
            el("p", subtitle, class_="subtitle"),
            el("nav", [el("a", name, href=f"#{place}") for place, name in links], aria_label="Parts of this page"),
        ),
        el("main", content),
        el(
            "footer",
            f"Made by naiad {version}. This file is complete: it loads nothing, and can be kept, sent and printed. ",
            el("button", "Save the figures as JSON", type="button", id="save", hidden=True)
            if data is not None
            else None,
        ),
        _data(data) if data is not None else None,
        el("script", raw(script)),
    )
    return f"<!DOCTYPE html>\n{el('html', head, body, lang='en')}\n"


def _data(data: Mapping[str, Any]) -> Html:
    """Return the report itself, so that the page can be read back, and saved as JSON from the page."""
    return el("script", raw(dump(data).replace("<", "\\u003c")), type="application/json", id=DATA_ID)


def _resource(name: str) -> str:
    return files("naiad.loadtest._report").joinpath(name).read_text("utf-8")


def created(moment: str) -> str:
    """Return an ISO 8601 time in UTC as one reads it."""
    return str(moment.replace("T", " ").replace("+00:00", " UTC"))
