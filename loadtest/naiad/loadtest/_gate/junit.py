"""The gate's result as JUnit XML: a test case for each metric, for each objective, and for the whole."""

from __future__ import annotations

import re
from typing import Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from naiad.loadtest._gate.metric import MetricResult, Objective
from naiad.loadtest._gate.result import GateResult

__all__ = ["to_junit"]

_NOT_IN_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(result: GateResult) -> str:
    """Return the result as JUnit XML, as continuous-integration services read it.

    A regression and a missed objective are failures; what could not be decided is a failure of type ``inconclusive``;
    an invalid gate is an error. Metrics that are only watched are skipped, with what they showed.
    """
    cases = [_verdict_case(result), *map(_metric_case, result.metrics), *map(_objective_case, result.objectives)]
    suite = Element(
        "testsuite",
        name=_clean(f"naiad gate: {result.candidate} against {result.baseline}"),
        tests=str(len(cases)),
        failures=str(_count(cases, "failure")),
        errors=str(_count(cases, "error")),
        skipped=str(_count(cases, "skipped")),
        time=f"{result.elapsed_s:.3f}",
        timestamp=result.created.strftime("%Y-%m-%dT%H:%M:%S"),
    )
    _add_properties(suite, result)
    suite.extend(cases)
    root = Element("testsuites", {**{name: suite.attrib[name] for name in ("tests", "failures", "errors", "time")}})
    root.append(suite)
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _verdict_case(result: GateResult) -> Element:
    case = _case("verdict", result.text)
    if result.verdict == "invalid":
        _child(case, "error", "invalid", result.reason)
    elif result.verdict != "no regression":
        _child(case, "failure", result.verdict, result.reason)
    case.set("time", f"{result.elapsed_s:.3f}")
    return case


def _metric_case(item: MetricResult) -> Element:
    case = _case(f"metric {item.name}", item.text)
    if not item.judged:
        _child(case, "skipped", "", f"watched, not judged: {item.text}")
    elif item.verdict != "no regression":
        _child(case, "failure", item.verdict, item.text)
    return case


def _objective_case(objective: Objective) -> Element:
    case = _case(f"objective {objective.text}", objective.line)
    if not objective.met:
        _child(case, "failure", "objective missed", objective.line)
    return case


def _case(name: str, text: str) -> Element:
    case = Element("testcase", classname="naiad.gate", name=_clean(name), time="0")
    SubElement(case, "system-out").text = _clean(text)
    return case


def _child(case: Element, tag: str, kind: str, message: str) -> None:
    child = Element(tag, message=_clean(message))
    if kind:
        child.set("type", kind)
    case.insert(0, child)


def _add_properties(suite: Element, result: GateResult) -> None:
    properties = SubElement(suite, "properties")
    for name, value in (
        ("verdict", result.verdict),
        ("exit_code", result.exit_code),
        ("pairs", result.num_pairs),
        ("discarded", len(result.discarded)),
        ("alpha", result.options.alpha),
        ("seed", result.seed),
        ("machine", result.machine),
    ):
        SubElement(properties, "property", name=name, value=_clean(str(value)))


def _count(cases: list[Element], tag: str) -> int:
    return sum(case.find(tag) is not None for case in cases)


def _clean(text: str) -> str:
    """Return ``text`` without the characters that XML cannot hold."""
    return _NOT_IN_XML.sub("�", text)
