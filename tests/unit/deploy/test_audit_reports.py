"""Findings for programs, and what an audit is asked."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.main import get_command

from naiad.cli.app import app
from naiad.deploy import _audit
from naiad.deploy._audit.target import is_this_machine, parse_target
from naiad.deploy.audit import Finding, Severity, to_json, to_junit, to_sarif, worst
from naiad.deploy.errors import InvalidTarget

BAD = Finding(id="tls", severity=Severity.HIGH, where="docker-compose.yml: triton [1]", found="no <TLS> & more",
              why="w", fix="f", source="https://example.org")  # fmt: skip
ODD = Finding(id="keys", severity=Severity.UNKNOWN, where="here", found="not checked: x")
WELL = Finding(id="health", severity=Severity.OK, where="here", found="ready")


def test_json_counts_every_severity():
    """Those that did not occur, too."""
    document = json.loads(json.dumps(to_json([BAD, ODD, WELL])))
    assert document["summary"] == {"critical": 0, "high": 1, "medium": 0, "low": 0, "unknown": 1, "ok": 1}
    assert [finding["id"] for finding in document["findings"]] == ["tls", "keys", "health"]


def test_sarif_has_what_is_wrong_and_nothing_else():
    """With its rule, its level, and a place that is a URI."""
    run = json.loads(to_sarif([BAD, ODD, WELL]))["runs"][0]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["tls"]
    (result,) = run["results"]
    assert result["level"] == "error"
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "docker-compose.yml"


@pytest.mark.parametrize(("fail_on", "failures"), [("critical", 0), ("high", 1), ("low", 1)])
def test_junit_fails_what_is_as_bad_as_was_asked(fail_on, failures):
    """What could not be checked is skipped."""
    suite = ElementTree.fromstring(to_junit([BAD, ODD, WELL], Severity(fail_on)))
    assert (suite.get("tests"), suite.get("skipped")) == ("3", "1")
    assert len(suite.findall("testcase/failure")) == failures == int(suite.get("failures"))


def test_the_worst_finding_decides():
    """Nothing found is well."""
    assert worst([WELL, BAD, ODD]) is Severity.HIGH
    assert worst([]) is Severity.OK
    assert not worst([ODD]).at_least(Severity.LOW)


@pytest.mark.parametrize(
    ("url", "address", "secure", "secret"),
    [
        ("grpc://gpu1", "gpu1:8001", False, None),
        ("grpcs://:s%2Fe@gw:8443", "gw:8443", True, "s/e"),
        ("http://[::1]:8000/", "[::1]:8000", False, None),
        ("https://gw", "gw:443", True, None),
        ("127.0.0.1:8001", "127.0.0.1:8001", False, None),
    ],
)
def test_urls_are_read(url, address, secure, secret):
    """Of both protocols, with the secret in them, if there is one."""
    target = parse_target(url)
    assert (target.address, target.secure, target.secret) == (address, secure, secret)


@pytest.mark.parametrize(
    "url", ["", "ftp://x", "grpc://", "http://x:99999", "http://x/v2", "http://x?y", "grpc://:hush@x:port", "unix:///x"]
)
def test_what_is_no_url_is_refused_without_its_secret(url):
    """The message shows what is expected."""
    with pytest.raises(InvalidTarget, match="expected a URL like") as caught:
        parse_target(url)
    assert "hush" not in str(caught.value)


def test_this_machine_is_known_by_its_addresses():
    """A host without an address is an error."""
    assert is_this_machine("127.0.0.1")
    assert is_this_machine("localhost")
    assert not is_this_machine("192.0.2.1")
    with pytest.raises(InvalidTarget, match="a host that has an address"):
        is_this_machine("no-such-host.invalid")


def test_the_commands_that_fix_something_exist():
    """With their options."""
    sources = "".join(path.read_text() for path in Path(_audit.__file__).parent.glob("judge_*.py"))
    named = set(re.findall(r"naiad deploy ((?:key |certificate )?[a-z]+)", sources))
    assert named
    for words in map(str.split, named):
        command = get_command(app).commands["deploy"]
        for word in words:
            assert word in command.commands, words
            command = command.commands[word]
