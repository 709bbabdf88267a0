"""The report of a locustfile's run: made by a process of its own, which looks at the server and knows no gevent."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import gevent
from locust.env import Environment

from naiad.loadtest._engine.plans import encode_test
from naiad.loadtest._report.files import check_writable
from naiad.loadtest.plan import LoadTest, Rate, Users
from naiad.loadtest.slo import Slo

if TYPE_CHECKING:
    from naiad.loadtest._locust.triton_user import TritonUser

__all__ = ["ReportLink", "add_page", "report_wanted"]

_logger = logging.getLogger("naiad.loadtest")
_WRITE_S: Final = 120.0
_LOOK_S: Final = 30.0
_TEN_YEARS_S: Final = 3.2e8
_PAGE: Final = "/naiad-report"
_pages = tempfile.TemporaryDirectory(prefix="naiad-locust-")


def _option(environment: Environment, name: str) -> Any:
    return getattr(environment.parsed_options, name, None) or None


def report_wanted(environment: Environment) -> bool:
    """Whether somebody asked for a report, by an option or by having the web UI, which links to it."""
    asked = any(_option(environment, name) for name in ("naiad_html", "naiad_json", "naiad_slo"))
    return asked or environment.web_ui is not None


def _page_path(environment: Environment) -> Path:
    return Path(_pages.name) / f"{id(environment)}.html"


class ReportLink:
    """The process that makes the report of one test.

    Raises:
        InvalidPlan: an objective cannot be parsed, or a file cannot be written where it was asked for.
    """

    def __init__(self, environment: Environment, classes: Sequence[type[TritonUser]]) -> None:
        self._environment = environment
        html, json_path = _option(environment, "naiad_html"), _option(environment, "naiad_json")
        for path in filter(None, (html, json_path)):
            check_writable(Path(path))
        page = str(_page_path(environment)) if environment.web_ui is not None else None
        slos = tuple(map(Slo.parse, (_option(environment, "naiad_slo") or "").split()))
        test = replace(_whole(environment, classes), slos=slos)
        plan = {"test": encode_test(test), "html": [path for path in (html, page) if path], "json": json_path}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "naiad.loadtest._locust.reporter"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C ends the load; the report is written then
        )
        self.write(json.dumps(plan) + "\n")

    def wait(self) -> None:
        """Return when it has had a first look at the server, or cannot."""
        assert self._process.stdout is not None
        with gevent.Timeout(_LOOK_S, False):
            self._process.stdout.readline()

    def begin(self, at_ns: int) -> None:
        """Say when the load begins, by this machine's ``time.perf_counter_ns()``."""
        self.write(json.dumps({"at_ns": at_ns}) + "\n")

    def write(self, line: str) -> None:
        """Pass on a line of an engine."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError, ValueError):  # it ended; what it said on stderr is why
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()

    def finish(self) -> None:
        """Have it write the report; what it says goes to the log, a verdict that is no pass to the exit code."""
        try:
            said, _ = self._process.communicate(timeout=_WRITE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            said = b""
        lines = said.splitlines() or [b'{"text": "the report could not be written", "ok": false}']
        words = json.loads(lines[-1])
        _logger.log(logging.INFO if words["ok"] else logging.ERROR, "%s", words["text"])
        if not words["ok"] and self._environment.process_exit_code is None:
            self._environment.process_exit_code = 1


def _whole(environment: Environment, classes: Sequence[type[TritonUser]]) -> LoadTest:
    """Return one test for the users of all classes; Locust says when it ends."""
    runner = environment.runner
    num_users = max(1, getattr(runner, "target_user_count", 1))
    parts = [each.test(environment) for each in classes]
    rates = [part.load.per_s for part in parts if isinstance(part.load, Rate)]
    load = Rate(per_s=sum(rates) / len(parts) * num_users) if len(rates) == len(parts) else Users(users=num_users)
    return LoadTest(
        traffic=tuple(part.mix[0] for part in parts),
        load=load,
        connection=parts[0].connection,
        duration_s=_TEN_YEARS_S,
        seed=classes[0].seed,
        name=", ".join(each.__name__ for each in classes),
    )


def add_page(environment: Environment) -> None:
    """Serve the latest report in Locust's web UI, with a link among the files to download."""
    web_ui: Any = environment.web_ui

    def naiad_report() -> Any:
        page = _page_path(environment)
        if not page.exists():
            return "The report is written when the test stops.", 404
        return page.read_text(encoding="utf-8")

    web_ui.app.add_url_rule(_PAGE, view_func=web_ui.auth_required_if_enabled(naiad_report))
    links = web_ui.template_args.setdefault("extended_csv_files", [])
    links.append({"href": _PAGE, "title": "Naiad report"})
