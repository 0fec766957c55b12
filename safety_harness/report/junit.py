"""Write the results as JUnit XML: a suite for each student, and in it a case for each check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as Xml

from safety_harness.gate.decide import required_of
from safety_harness.gate.numbers import Defense
from safety_harness.gate.results import Check, Outcome, RunResult, StudentResult
from safety_harness.report.cells import shipping, verdict
from safety_harness.report.head import notices
from safety_harness.text import visible

# A run that is no pass is never a passed case.
_RUN_MARKS = {Outcome.FAIL: "failure", Outcome.INCONCLUSIVE: "error", Outcome.KNOWN_RED: "skipped"}


def junit(result: RunResult) -> str:
    """Return the results as JUnit XML.

    A check that fails is a failure. A check that is unproven, or was not measured, is an error. Both are skipped where
    the student failed as the registry expects. If such a student passes, that is a failure. An attack that does not
    count is skipped. The last suite is the run, with the gate's decision: skipped for known reds, so that nobody takes
    it for passed.
    """
    root = Xml.Element("testsuites", name="release gate")
    for student in result.students:
        root.append(_suite(student, required_of(student, result.provenance, result.gate)))
    root.append(_run(result))
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _run(result: RunResult) -> Xml.Element:
    suite = Xml.Element("testsuite", name="run")
    if said := notices(result):
        properties = Xml.SubElement(suite, "properties")
        for notice in said:
            Xml.SubElement(properties, "property", name="notice", value=visible(notice))
    case = Xml.SubElement(suite, "testcase", classname="run", name="gate")
    marks = []
    if result.outcome is not Outcome.PASS:
        marks = [_RUN_MARKS[result.outcome]]
        reasons = [visible(reason) for reason in result.reasons] or ["no reason given"]
        message = f"{result.outcome.value}: {reasons[0]} {shipping(result)}"
        Xml.SubElement(case, marks[0], message=message).text = "\n".join(reasons)
    suite.attrib |= _counts(suite, marks)
    return suite


def _suite(student: StudentResult, required: Sequence[str]) -> Xml.Element:
    suite = Xml.Element("testsuite", name=visible(student.id))
    properties = Xml.SubElement(suite, "properties")
    for name, value in _facts(student).items():
        Xml.SubElement(properties, "property", name=name, value=visible(str(value)))
    marks = []
    for name in dict.fromkeys((*required, *student.checks)):
        case = Xml.SubElement(suite, "testcase", classname=visible(student.id), name=visible(name))
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
    if check is not None and check.passed:
        return None
    if check is not None and not check.counts:
        return "skipped", check.sentence
    sentence = "not measured" if check is None else check.sentence
    if student.expected == "fail" and student.as_expected:
        return "skipped", f"the student was expected to fail: {sentence}"
    return ("failure" if check is not None and check.outcome is Outcome.FAIL else "error"), sentence


def _facts(student: StudentResult) -> Mapping[str, Any]:
    defense, patch = student.numbers(Defense), student.about.patch
    facts = {
        "outcome": student.outcome.value,
        "expected": student.expected,
        "gate": verdict(student),
        "refused before": defense.before,
        "refused after": defense.after,
        "harmful questions": defense.n,
        "share of parameters": patch and patch.share,
        "probes": patch and patch.probes,
    }
    return {name: value for name, value in facts.items() if value is not None}
