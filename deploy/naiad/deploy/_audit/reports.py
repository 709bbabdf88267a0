"""Findings for programs: JSON, SARIF 2.1.0 (code scanning), JUnit (CI servers)."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import quote
from xml.etree import ElementTree

from naiad.deploy._audit.finding import Finding, Severity

_SARIF: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS: Final = {
    Severity.CRITICAL: "error",
    Severity.HIGH: "error",
    Severity.MEDIUM: "warning",
    Severity.LOW: "note",
    Severity.UNKNOWN: "none",
    Severity.OK: "none",
}
_SCORES: Final = {Severity.CRITICAL: "9.5", Severity.HIGH: "8.0", Severity.MEDIUM: "5.5", Severity.LOW: "2.5"}
"""What GitHub reads as `security-severity`: the middle of each band of CVSS."""


def to_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """A document with all findings, and how many there are of each severity."""
    counts = Counter(finding.severity for finding in findings)
    return {
        "summary": {severity.value: counts[severity] for severity in Severity},
        "findings": [asdict(finding) for finding in findings],
    }


def to_sarif(findings: Iterable[Finding]) -> str:
    """SARIF of what is wrong."""
    wrong = [finding for finding in findings if finding.severity in _SCORES]
    rules = {finding.id: finding for finding in reversed(wrong)}
    driver = {
        "name": "naiad audit",
        "rules": [_rule(finding) for _, finding in sorted(rules.items())],
    }
    run = {"tool": {"driver": driver}, "results": [_result(finding) for finding in wrong]}
    return json.dumps({"$schema": _SARIF, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def to_junit(findings: Iterable[Finding], fail_on: Severity) -> str:
    """JUnit XML: a test case for each finding, failed where it is as bad as `fail_on`."""
    cases = list(findings)
    failed = [finding for finding in cases if _fails(finding, fail_on)]
    skipped = sum(finding.severity is Severity.UNKNOWN for finding in cases)
    suite = ElementTree.Element(
        "testsuite", name="naiad audit", tests=str(len(cases)), failures=str(len(failed)), skipped=str(skipped)
    )
    for finding in cases:
        case = ElementTree.SubElement(suite, "testcase", classname=finding.where, name=finding.id)
        if finding in failed:
            failure = ElementTree.SubElement(case, "failure", message=finding.found, type=finding.severity.value)
            failure.text = f"{finding.why}\nfix: {finding.fix}\n{finding.source}".strip()
        elif finding.severity is Severity.UNKNOWN:
            ElementTree.SubElement(case, "skipped", message=finding.found)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _fails(finding: Finding, fail_on: Severity) -> bool:
    return finding.severity in _SCORES and finding.severity.at_least(fail_on)


def _rule(finding: Finding) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "id": finding.id,
        "shortDescription": {"text": finding.id.replace("-", " ")},
        "properties": {"security-severity": _SCORES[finding.severity]},
    }
    return rule | ({"helpUri": finding.source} if finding.source else {})


def _result(finding: Finding) -> dict[str, Any]:
    # Readers want a place; of a file it is the file, of an address or a process its name as a relative URI.
    place = {"artifactLocation": {"uri": quote(finding.where.partition(": ")[0])}}
    return {
        "ruleId": finding.id,
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{finding.where}: {finding.found}. {finding.fix}"},
        "locations": [{"physicalLocation": place}],
    }
