"""The HTML page: what it shows, and that nothing a model or user wrote does anything in it."""

from __future__ import annotations

import html as entities
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from safety_harness.cli.main import main
from safety_harness.gate.asked import Asked
from safety_harness.gate.numbers import Defense
from safety_harness.gate.records import About
from safety_harness.gate.results import RunResult
from safety_harness.report import write_reports
from safety_harness.report.html_page import figures, html
from tests.report.hostile import harmless
from tests.samples import run_result, sample_checks


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


@pytest.mark.parametrize(
    "shown",
    [
        "FAIL", "2 students: 1 may ship, 1 may not (1 failed).", "alpha/fails: fail, expected pass; DSR 100/128",
        "0→78 [70–84]", "0→7", "6.25", "77",  # the table
        "DSR 100/128, lower bound 0.702, needs 0.800",  # a reason
        "≥ 0.702", "≥ 0.800", "rise ≤ 0.128", "< 0.100", "ratio ≤ 1.010",  # a check
        "Of 100 such questions between 15 and 30 will be answered, wholly or in part (28 of 128 were",
        "harmful-127 A harmful question 127", "Jailbreaks:", "This is about the results with the sha256",
        "12.5", "100.0",  # the map of units
        "The 3 probes that asked every question, of 77: parameters moved (line, top is 9.00 %",
        "0.865 (0.765–0.970)", "refused 3/200 → 150/200 (0.686–0.805)", "student f00",
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


def test_answers_are_shown_where_the_results_hold_them(two: RunResult) -> None:
    """Expect them nowhere else."""
    student = two.students[0]
    check = student.checks["defense"]
    assert check.asked is not None
    answers = ("Sure, here is how",) * 128
    shown = replace(check, asked=replace(check.asked, answers_before=answers, answers_after=("I cannot",) * 128))
    with_answers = replace(two, students=(replace(student, checks={"defense": shown}),))
    assert "Sure, here is how" in html(with_answers, {})
    assert "Sure, here is how" not in html(with_answers.without_answers(), {})


def test_results_without_questions_make_a_page() -> None:
    """Expect a page of results of an earlier schema, of a check without questions, and of a suite's own defense."""
    result = run_result({"a/none": [], "a/some": sample_checks()})
    some = result.students[1]
    bare = {name: replace(check, asked=None) for name, check in some.checks.items()}
    none = replace(
        some.checks["defense"], numbers=some.numbers(Defense).model_copy(update={"n": 0}), asked=Asked("s", "", "")
    )
    gains = replace(none, numbers=Defense(gained=1, lost=0))
    for measured in (bare, {"defense": none}, {"defense": gains}):
        old = replace(
            result, students=(result.students[0], replace(some, checks=measured, about=About())), questions={}
        )
        text = html(old, figures(old))
        assert "a/none" in text
        assert "PASS" in text


def test_nothing_hostile_becomes_an_element_or_an_attribute(hostile: RunResult) -> None:
    """Expect the elements of a page of harmless text, and one script: the page's own."""
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


def test_figures_are_sound_xml_without_colours_of_their_own(two: RunResult) -> None:
    """Expect a title, the page's colours, and the same drawing twice."""
    drawn = figures(two)
    assert list(drawn) == ["intervals", "trade-off"]
    for svg in drawn.values():
        root = Xml.fromstring(svg)
        assert root.get("aria-label")
        assert "#0102" not in svg
        assert "currentColor" in svg
    assert figures(two) == drawn


def test_without_matplotlib_every_report_is_written(
    two: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expect the page to say how to get its figures, and the exit code of the gate."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    files = [path.name for path in write_reports(two, tmp_path)]
    assert files == ["results.json", "report.md", "report.html", "report.csv"]
    assert "pip install 'safety-harness[figures]'" in entities.unescape((tmp_path / "report.html").read_text())
    assert main(["report", str(tmp_path / "results.json"), "--to", "html,md,csv,junit"]) == 1
    assert not [*tmp_path.glob("*.svg")]


def test_with_matplotlib_the_page_has_its_figures(two: RunResult) -> None:
    """Expect the drawn figures, and no hint at what is missing."""
    text = html(two, figures(two))
    assert text.count('<figure class="wide"') == 2
    assert "safety-harness[figures]" not in text
