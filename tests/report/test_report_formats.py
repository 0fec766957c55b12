"""Every format of a report: its numbers, and that nothing a model or user wrote does anything in it."""

from __future__ import annotations

import csv
import dataclasses
import html as entities
import io
import json
import re
import time
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from safety_harness.cli.main import main
from safety_harness.gate.decide import decide_run
from safety_harness.gate.incidents import Incident
from safety_harness.gate.results import Asked, Outcome, Question, RunResult
from safety_harness.report import WRITERS, write_reports
from safety_harness.report.comparison import versus
from safety_harness.report.github import workflow_commands, write_summary
from safety_harness.report.html_page import figures, html
from safety_harness.report.markdown import brief
from safety_harness.report.spreadsheet import sheet
from tests.samples import HARMFUL, run_result, sample_checks

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    '=HYPERLINK("http://evil")',
    "+1+cmd|' /C calc'!A0",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egnp.exe\u2066",
    "a\nb\r::error::forged%0A",
    "]]>&amp;\x00\ufffe",
    "$\\frac{$ \\",
    "{{ 7 * 7 }}{% raw %}",
]


@pytest.fixture(scope="module")
def hostile() -> RunResult:
    """A run in which all that is text, down to the answers, means harm."""
    students = []
    for number, text in enumerate([*HOSTILE, "x" * 1_000_000]):
        (student,) = run_result({f"{text} {number}": sample_checks(refused=100, over_refused=3)}).students
        check = student.checks["defense"]
        assert check.asked is not None
        said = (text,) * len(check.asked.before)
        told = replace(check, summary=text, asked=replace(check.asked, answers_before=said, answers_after=said))
        patch = {**student.about["patch"], "reason": text, "units": [text], "key": text}
        students.append(
            replace(
                student,
                checks={**student.checks, "defense": told},
                reasons=(text,),
                about={**student.about, "patch": patch, "identity": {text: text}},
            )
        )
    questions = {HARMFUL: tuple(Question(f"{text} {at}", text, text) for at, text in enumerate(HOSTILE * 12))}
    base = run_result({})
    judge = {"name": HOSTILE[0], "fingerprint": HOSTILE[1], "sets": {text: {"n": text} for text in HOSTILE}}
    return replace(
        base, students=tuple(students), judge=judge, questions=questions,
        incomplete=tuple(Incident("other", cause=text) for text in HOSTILE),
        provenance={text: text for text in HOSTILE},
    )  # fmt: skip


def harmless(value: Any) -> Any:
    """*value* with "x" in the place of every text that is hostile, of the same structure otherwise."""
    if isinstance(value, str):
        bad = value in HOSTILE or any(text in value for text in HOSTILE) or len(value) > 10_000
        return f"x{zlib.crc32(value.encode())}" if bad else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{name: harmless(each) for name, each in vars(value).items()})
    if isinstance(value, dict):
        return {harmless(key): harmless(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(harmless, value))
    return value


class Page(HTMLParser):
    """The elements of a page, with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


# --- HTML ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two() -> RunResult:
    return run_result({"alpha/passes": sample_checks(), "alpha/fails": sample_checks(refused=100, over_refused=9)})


@pytest.mark.parametrize(
    "shown",
    [
        "FAIL", "2 students: 1 pass, 1 fail", "alpha/fails: fail, expected pass; DSR 100/128",
        "0→78 [70–84]", "0→7", "6.25", "77",  # the table
        "DSR 100/128, lower bound 0.702, needs 0.800",  # a check
        "12.5", "100.0",  # the map of units
        "The 3 probes that were heard to their end, of 77: parameters moved (line, top is 9.00 %",
        "0.865 (0.765–0.970)", "refused 3/200 → 150/200 (0.686–0.805)", "weights f00",
        "refuses harmful questions: 100 questions flipped", "harmful-0", "(weapons)", "complied → refused",
        "A harmful question 99", "own anchors", "0.950", "abc123", "dsr 0.800", "Reviewed by",
    ],
)  # fmt: skip
def test_the_page_shows(two: RunResult, shown: str) -> None:
    text = re.sub(r"\s+", " ", "".join(Page(html(two, figures(two))).text))
    assert shown in text


def test_the_two_by_two_adds_up(two: RunResult) -> None:
    text = html(two, {})
    cells = re.findall(r"<th scope=\"row\">(refused before|not before)</th><td>(\d+)</td><td>(\d+)</td>", text)
    assert cells == [
        ("refused before", "0", "0"), ("not before", "128", "0"),
        ("refused before", "0", "0"), ("not before", "100", "28"),
    ]  # fmt: skip


def test_answers_are_shown_where_the_results_hold_them_and_nowhere_else(two: RunResult) -> None:
    student = two.students[0]
    check = student.checks["defense"]
    assert check.asked is not None
    said = ("Sure, here is how",) * 128
    told = replace(check, asked=replace(check.asked, answers_before=said, answers_after=("I cannot",) * 128))
    with_answers = replace(two, students=(replace(student, checks={"defense": told}),))
    assert "Sure, here is how" in html(with_answers, {})
    assert "Sure, here is how" not in html(with_answers.without_answers(), {})


def test_results_without_questions_and_an_earlier_schema_make_a_page() -> None:
    result = run_result({"a/none": [], "a/some": sample_checks()})
    some = result.students[1]
    bare = {name: replace(check, asked=None) for name, check in some.checks.items()}
    none = replace(some.checks["defense"], numbers={**some.checks["defense"].numbers, "n": 0}, asked=Asked("s", "", ""))
    for found in (bare, {"defense": none}):
        old = replace(result, students=(result.students[0], replace(some, checks=found, about={})), questions={})
        text = html(old, figures(old))
        assert "a/none" in text
        assert "PASS" in text


def test_nothing_hostile_becomes_an_element_or_an_attribute(hostile: RunResult) -> None:
    """The page of hostile text has the elements of the page of harmless text, and runs one script: its own."""
    plain = harmless(hostile)
    text = html(hostile, figures(hostile))
    page, other = Page(text), Page(html(plain, figures(plain)))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in other.elements]
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    links = [str(attributes["href"]) for tag, attributes in page.elements if tag == "a"]
    assert all(re.fullmatch(r"#[\w-]+", link) for link in links)
    assert "{{ 7 * 7 }}" in entities.unescape(text)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069\ufffe]", text)
    assert len(text) < 4_000_000  # a megabyte on one line is cut wherever it is an answer


def test_the_page_loads_nothing_and_lets_only_its_own_script_run(two: RunResult) -> None:
    page = Page(html(two, figures(two)))
    loading = {"link", "iframe", "object", "embed", "base", "form", "img", "audio", "video", "source"}
    assert not loading & {tag for tag, _ in page.elements}
    assert not [attributes for _, attributes in page.elements if {"src", "srcset", "action"} & attributes.keys()]
    policy = next(str(a["content"]) for t, a in page.elements if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")


def test_figures_are_sound_xml_with_a_title_and_no_colours_of_their_own(two: RunResult) -> None:
    drawn = figures(two)
    assert list(drawn) == ["intervals", "trade-off"]
    for svg in drawn.values():
        root = Xml.fromstring(svg)
        assert root.get("aria-label")
        assert "#0102" not in svg
        assert "currentColor" in svg
    assert figures(two) == drawn


# --- Other formats ---------------------------------------------------------------------------------------------------


def test_a_row_a_student_for_a_spreadsheet(two: RunResult) -> None:
    rows = list(csv.DictReader(io.StringIO(sheet(two))))
    assert [row["student"] for row in rows] == ["alpha/passes", "alpha/fails"]
    assert (rows[1]["defense after"], rows[1]["outcome"], rows[1]["share of parameters"]) == ("100", "fail", "0.0625")
    assert float(rows[1]["defense after, lower"]) == pytest.approx(0.702, abs=5e-4)


def test_no_cell_is_a_formula(hostile: RunResult) -> None:
    cells = [cell for row in csv.reader(io.StringIO(sheet(hostile))) for cell in row]
    assert not [cell for cell in cells if re.match(r"[=+@\t\r]|-[^\d]", cell)]
    assert not re.search(r"[\x00-\x09\x0b\x0c\x0e-\x1f\u202e]", sheet(hostile))


def test_junit_counts_what_it_lists() -> None:
    named = {
        "a/passes": sample_checks(),
        "a/fails": sample_checks(9),
        "a/lost": sample_checks(9),
        "a/won": sample_checks(),
        "a/none": [],
    }
    root = Xml.fromstring(WRITERS["junit"](run_result(named, {"a/lost": "fail", "a/won": "fail"}), None)["junit.xml"])
    counts = {suite.get("name"): [suite.get(k) for k in ("tests", "failures", "errors", "skipped")] for suite in root}
    assert counts == {
        "a/passes": ["6", "0", "0", "0"],
        "a/fails": ["6", "1", "0", "0"],
        "a/lost": ["6", "0", "0", "1"],
        "a/won": ["7", "1", "0", "0"],
        "a/none": ["6", "0", "6", "0"],
        "run": ["1", "1", "0", "0"],
    }
    facts = {each.get("name"): each.get("value") for each in root[1].iter("property")}
    assert facts["refused after"] == "9"


@pytest.mark.parametrize("green", [True, False])
def test_junit_is_as_green_as_the_gate(green: bool) -> None:
    """Of students as they are nothing is minimal; what is expected to fail may lack a check; an interrupt is seen."""
    result = run_result({"a/one": sample_checks(), "a/lost": [sample_checks(9)[0]]}, {"a/lost": "fail"})
    as_it_is = replace(
        result.students[0], checks={n: c for n, c in result.students[0].checks.items() if n != "minimality"}
    )
    incomplete = [] if green else [Incident("interrupted")]
    result = decide_run(
        (as_it_is, result.students[1]), incomplete=incomplete, gate={}, judge={}, provenance={"subject": "student"}
    )
    root = Xml.fromstring(WRITERS["junit"](result, None)["junit.xml"])
    red = sum(int(suite.get(kind, 0)) for suite in root for kind in ("failures", "errors"))
    assert (result.outcome is Outcome.PASS, red == 0) == (green, green)


@pytest.mark.parametrize("kind", WRITERS)
def test_hostile_text_steers_nothing(hostile: RunResult, kind: str) -> None:
    for name, text in WRITERS[kind](hostile, versus(hostile, hostile, HOSTILE[0])).items():
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\u202a-\u202e\u2066-\u2069]", text), name
        if name.endswith((".xml", ".svg")):
            Xml.fromstring(text)
        if name.endswith(".md"):
            assert "<script" not in text
            assert "<img" not in text
            assert not re.search(r"(?<!\\)\[click\]\(", text)


# --- GitHub ----------------------------------------------------------------------------------------------------------


def test_a_summary_is_appended_where_github_asks_for_one(
    two: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert not write_summary(two)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    (tmp_path / "summary").write_text("before\n")
    assert write_summary(two)
    text = (tmp_path / "summary").read_text()
    assert text == "before\n" + brief(two)
    assert "| alpha/fails" in text


def test_reasons_become_annotations_and_none_forges_another(
    hostile: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    assert workflow_commands(hostile) == []
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    found = workflow_commands(hostile)
    assert len(found) == 10
    assert all(line.startswith("::") and "\n" not in line and "\r" not in line for line in found)
    assert all(line.isprintable() for line in found)
    assert "a b ::error::forged%250A" in found[7]


# --- Two runs --------------------------------------------------------------------------------------------------------


def test_two_runs_are_compared_question_by_question() -> None:
    old = run_result(
        {"a/one": sample_checks(refused=100), "a/two": sample_checks(over_refused=6), "a/gone": sample_checks()}
    )
    new = run_result(
        {"a/one": sample_checks(refused=120), "a/two": sample_checks(over_refused=1), "a/new": sample_checks()}
    )
    found = versus(new, old, "old.json")
    changes = {(change.student, change.check): change for change in found.changes}
    one, two = changes["a/one", "defense"], changes["a/two", "over_refusal"]
    assert (one.before, one.after, one.better, one.worse) == (100, 120, 20, 0)
    assert one.p == pytest.approx(2 * 0.5**20)
    assert one.p_adjusted == pytest.approx(2 * one.p)
    assert (two.before, two.after, two.better, two.worse) == (6, 1, 5, 0)
    assert changes["a/two", "task"].p == 1.0
    assert found.notes == ("a/one: was fail, is pass", "a/new: was not in it")
    assert len(found.uncompared) == 1
    assert found.uncompared[0].startswith("a/gone: defense, over_refusal, task not compared")


def test_what_was_asked_otherwise_is_not_compared() -> None:
    old, new = (run_result({"a/one": sample_checks()}) for _ in range(2))
    student = old.students[0]
    check = student.checks["defense"]
    assert check.asked is not None
    other = replace(check, asked=replace(check.asked, set="d" * 64))
    old = replace(old, students=(replace(student, checks={**student.checks, "defense": other}),))
    found = versus(new, old, "old.json")
    assert [change.check for change in found.changes] == ["over_refusal", "task"]
    assert found.notes == ()
    assert found.uncompared == ("a/one: defense not compared; measured there, and here not on the same questions",)
    judged = replace(old, judge={**old.judge, "fingerprint": "another"})
    assert versus(new, judged, "old.json").uncompared == ("nothing is compared: its judge was another, and is f00d",)


# --- The command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_every_format_and_says_where(
    two: RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    write_reports(two, tmp_path)
    code = main(["report", str(tmp_path / "results.json"), "--to", "md,html,csv,junit,github", "--out",
                 str(tmp_path / "out"), "--against", str(tmp_path / "results.json")])  # fmt: skip
    assert code == 1
    written = ["report.md", "report.html", "intervals.svg", "trade-off.svg", "report.csv", "junit.xml"]
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "out" / name) for name in written]
    for name in ("report.md", "report.html"):
        assert "Against" in (tmp_path / "out" / name).read_text()
    assert "Against" in (tmp_path / "summary").read_text()


@pytest.mark.parametrize(("before", "now", "code"), [(120, 128, 0), (128, 120, 1), (128, 126, 0)])
def test_a_run_that_is_worse_than_the_last_can_be_refused(tmp_path: Path, before: int, now: int, code: int) -> None:
    """Eight questions fewer are more than chance explains, two are not; all of these pass their gate."""
    for name, refused in (("old", before), ("new", now)):
        (tmp_path / f"{name}.json").write_text(run_result({"a/one": sample_checks(refused=refused)}).to_json())
    arguments = ["report", str(tmp_path / "new.json"), "--against", str(tmp_path / "old.json")]
    assert main(arguments) == 0
    assert main([*arguments, "--not-worse"]) == code


@pytest.mark.parametrize("schema", [1, 2])
def test_what_cannot_be_compared_is_not_shown_to_be_no_worse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], schema: int
) -> None:
    """Another student, or results that do not know their questions."""
    old = json.loads(run_result({"a/one": sample_checks()} if schema == 1 else {"b/other": sample_checks()}).to_json())
    if schema == 1:
        for check in old["students"][0]["checks"].values():
            del check["asked"]
    (tmp_path / "old.json").write_text(json.dumps({**old, "schema": schema}))
    (tmp_path / "new.json").write_text(run_result({"a/one": sample_checks()}).to_json())
    assert main(["report", str(tmp_path / "new.json"), "--against", str(tmp_path / "old.json"), "--not-worse"]) == 1
    assert "not compared" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "pdf"], "report --to: 'pdf' is no format. Known are md, html, csv, junit, github."),
        (["--to", "github"], "GITHUB_STEP_SUMMARY names no file"),
        (["--against", "gone.json"], "gone.json: cannot be read as results"),
        (["--to", "md", "--out", "results.json/x"], "results.json/x"),
    ],
)
def test_wrong_input_of_the_command_says_what(
    two: RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("results.json").write_text(two.to_json())
    assert main(["report", "results.json", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow  # a measurement: 3.1 s on a free core, three times as long under coverage
def test_all_formats_of_two_hundred_students_and_a_thousand_questions(tmp_path: Path) -> None:
    """Five processor seconds, and a page that a browser still opens."""
    base = run_result({"one": sample_checks(refused=100, over_refused=9)})
    one = base.students[0]
    asked = Asked(HARMFUL, "C" * 1000, "RC" * 500)
    found = {**one.checks, "defense": replace(one.checks["defense"], asked=asked)}
    students = tuple(replace(one, id=f"family/student-{number:03}", checks=found) for number in range(200))
    questions = {HARMFUL: tuple(Question(f"harmful-{at}", f"A harmful question {at}" * 4) for at in range(1000))}
    result = replace(base, students=students, questions=questions)
    (tmp_path / "results.json").write_text(result.to_json())
    start = time.process_time()
    assert main(["report", str(tmp_path / "results.json"), "--to", "md,html,csv,junit"]) == 1
    assert time.process_time() - start < 5.0
    assert (tmp_path / "report.html").stat().st_size < 20_000_000
