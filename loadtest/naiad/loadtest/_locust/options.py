"""What Locust's command line and web UI offer beside Locust's own options."""

from __future__ import annotations

from typing import Any

from locust.event import Events

__all__ = ["add_options"]


def add_options(events: Events) -> None:
    """Give Locust's command line and web UI the options of :class:`TritonUser`, and those of the report."""
    events.init_command_line_parser.add_listener(_add)  # type: ignore[no-untyped-call]


def _add(parser: Any, **_: Any) -> None:
    group = parser.add_argument_group("Naiad")

    def add(*names: str, in_web_ui: bool = True, **fields: Any) -> None:
        action = group.add_argument(*names, **fields)
        # Locust's parser sets these, but for what is in a group.
        action.include_in_web_ui, action.is_secret = in_web_ui, False
        action.is_required = action.is_multiple = False

    add("--model", default="", env_var="NAIAD_MODEL", help="The model's name on the server")
    add("--model-version", default="", help="A version; by default the server chooses")
    add("--batch", type=int, help="Rows per request")
    add("--golden", default="", help="Send the samples of this golden.npz, not random ones")
    add("--data", default="", help="Send these samples: a folder or file of .npy, .npz, images or JSON lines")
    add("--check", action="store_true", help="Compare every answer with the expected one")
    add("--seed", type=int, help="Of the random samples and arrivals")
    add("--rate-per-user", type=float, help="Open loop: requests per second of each user, whoever waits for them")
    add("--naiad-html", default="", in_web_ui=False, help="Write the report as one self-contained page")
    add("--naiad-json", default="", in_web_ui=False, help="Write the report as JSON")
    slo_help = 'Objectives of the run with spaces between them, like "p99<20ms errors<0.1%%"'
    add("--naiad-slo", default="", in_web_ui=False, help=slo_help)
