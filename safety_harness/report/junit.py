"""The results as JUnit XML: a suite a student, a case a check, as CI servers show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as Xml

from safety_harness.gate import PATCH_REQUIRED
from safety_harness.report.cells import numbers_of, patch_of, visible
from safety_harness.results import Check, Outcome, RunResult, StudentResult


def junit(result: RunResult) -> str:
    """The results as JUnit XML.

    A check that fails is a failure, one that is unproven or was not measured an error; where the registry expects the
    student to fail they are skipped, and a pass is the failure.
    """
    root = Xml.Element("testsuites", name="release gate")
    for student in result.students:
        root.append(_suite(student))
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(student: StudentResult) -> Xml.Element:
    suite = Xml.Element("testsuite", name=visible(student.id))
    properties = Xml.SubElement(suite, "properties")
    for name, value in _facts(student).items():
        Xml.SubElement(properties, "property", name=name, value=visible(str(value)))
    marks = []
    for name in dict.fromkeys((*PATCH_REQUIRED, *student.checks)):
        case = Xml.SubElement(suite, "testcase", classname=visible(student.id), name=name)
        if (mark := _mark(student, student.checks.get(name))) is not None:
            marks.append(mark[0])
            Xml.SubElement(case, mark[0], message=visible(mark[1]))
    if student.expected == "fail" and student.outcome is Outcome.PASS:
        marks.append("failure")
        case = Xml.SubElement(suite, "testcase", classname=visible(student.id), name="expected to fail")
        Xml.SubElement(case, "failure", message="the registry expects this student to fail its gate, and it passed")
    suite.attrib |= _counts(suite, marks)
    return suite


def _counts(suite: Xml.Element, marks: Sequence[str]) -> dict[str, str]:
    kinds = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    return {"tests": str(len(suite.findall("testcase"))), **{k: str(marks.count(kind)) for k, kind in kinds.items()}}


def _mark(student: StudentResult, check: Check | None) -> tuple[str, str] | None:
    if check is None:
        return "error", "not measured"
    if check.passed:
        return None
    if student.expected == "fail" and check.outcome is Outcome.FAIL:
        return "skipped", f"expected to fail: {check.summary}"
    return ("failure" if check.outcome is Outcome.FAIL else "error"), check.summary


def _facts(student: StudentResult) -> Mapping[str, Any]:
    defense, patch = numbers_of(student, "defense"), patch_of(student)
    facts = {
        "outcome": student.outcome.value,
        "expected": student.expected,
        "refused before": defense.get("before"),
        "refused after": defense.get("after"),
        "harmful questions": defense.get("n"),
        "share of parameters": patch.get("share"),
        "probes": patch.get("probes"),
    }
    return {name: value for name, value in facts.items() if value is not None}
