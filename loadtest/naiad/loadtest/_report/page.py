"""The frame of every page: one file that needs nothing else, and may ask for nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from naiad.loadtest._report.html import Child, el, raw

__all__ = ["created", "page"]


def page(*, title: str, subtitle: str, version: str, links: Sequence[tuple[str, str]], content: Child) -> str:
    """Return a whole page; ``links`` are (id, name) of its parts.

    The policy in its head allows this very script and inline styles, and nothing from anywhere.
    """
    script, style = _resource("page.js"), _resource("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
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
        el("footer", f"Made by naiad {version}. This file is complete: it loads nothing, and can be kept, sent and printed."),
        el("script", raw(script)),
    )
    return f"<!DOCTYPE html>\n{el('html', head, body, lang='en')}\n"


def _resource(name: str) -> str:
    return files("naiad.loadtest._report").joinpath(name).read_text("utf-8")


def created(moment: str) -> str:
    """Return an ISO 8601 time in UTC as one reads it."""
    return str(moment.replace("T", " ").replace("+00:00", " UTC"))
