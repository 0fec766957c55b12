"""The page of a run under attack: the map, each question's fate, and answers only where they were kept."""

from __future__ import annotations

import html as entities
import re
from dataclasses import replace

import pytest

from safety_harness.gate import under_attack
from safety_harness.gate.asked import Asked
from safety_harness.gate.numbers import Attack
from safety_harness.gate.results import Check, RunResult
from safety_harness.registry.settings import GateSettings
from safety_harness.report import attacks_page, fates
from safety_harness.report.html_page import html
from tests.report.attacked import GATE, attack, attacked_run, five, sampled, together
from tests.samples import HARMFUL, answered, run_result, sample_checks


@pytest.fixture(scope="module")
def page() -> str:
    """The page of a student that holds under attack, one that falls, and one that was not asked."""
    named = {"alpha/holds": together(five()), "alpha/falls": together(five(wild=40), teacher=70), "alpha/none": []}
    return html(attacked_run(named), {})


def map_cells(text: str, student: str) -> list[tuple[str, str]]:
    """Return the attributes and the words of each cell of the map in the row of *student*."""
    table = text[text.index('<table class="heat">') :]
    row = table[table.index(f">{student}</a>") :].partition("</tr>")[0]
    return [(name.strip(), words(cell)) for name, cell in re.findall(r"<td([^>]*)>(.*?)</td>", row, flags=re.DOTALL)]


def words(markup: str) -> str:
    return " ".join(entities.unescape(re.sub(r"<[^>]+>", " ", markup)).split())


def fate_rows(text: str, student: int = 0) -> dict[str, list[str]]:
    """Return the cells of each question of a student, by the question's id."""
    table = text.split('<table class="fates">')[1 + student].partition("</table>")[0]
    found = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', table)
    return {words(name).split()[0]: re.findall(r"<td[^>]*>(.*?)</td>", cells) for name, cells in found}


# --- The map ---------------------------------------------------------------------------------------------------------


def test_a_cell_has_three_shares_and_the_control(page: str) -> None:
    """Expect the share before, after, and with all of the teacher; the worst attack is named twice."""
    together_, mild, wild, *_ = map_cells(page, "alpha/falls")
    assert together_ == ('style="--unsafe: 0.688"', "0 → 31 · T 55 FAIL : ≥ 23.9, needs 50.0 worst: wild")
    assert mild == ('style="--unsafe: 0.219"', "0 → 78 · T 94 control 30/32")
    assert wild == ('style="--unsafe: 0.667"', "2 → 33 · T 92 control 30/32 worst")


def test_what_does_not_count_is_hatched_and_says_why(page: str) -> None:
    garbled, known, odd = map_cells(page, "alpha/holds")[3:]
    assert garbled == ('class="aside"', "0 → 2 · T 94 n. a. 7/32")
    assert known == ('class="aside"', "0 → 94 · T 94 seen by the search 30/32")
    assert odd == ('class="aside"', "fits no question")
    assert map_cells(page, "alpha/none")[0] == ("", "not measured")
    assert set(map_cells(page, "alpha/none")[1:]) == {('class="aside"', "not measured")}


def test_a_student_of_another_gate_has_empty_cells() -> None:
    result = attacked_run({"alpha/one": together([attack("mild", 128)]), "beta/two": together([attack("wild", 128)])})
    gates = {
        name: {"gate": GateSettings(attacks=(one,)).model_dump(mode="json")}
        for name, one in (("alpha", "mild"), ("beta", "wild"))
    }
    text = html(replace(result, gate=gates), {})
    assert [cell for _, cell in map_cells(text, "alpha/one")][2] == "–"
    assert [cell for _, cell in map_cells(text, "beta/two")][1] == "–"


def test_without_attacks_a_page_has_none(two: RunResult) -> None:
    text = html(two, {})
    assert '<table class="heat">' not in text
    assert "Under attack" not in text
    assert '<table class="fates">' not in text


def test_the_overview_sorts_by_the_share_under_attack(page: str) -> None:
    overview = page[page.index('<table class="sortable">') :].partition("</table>")[0]
    assert ">attacked %</abbr></button>" in overview
    rows = [re.findall(r'<td data-value="([^"]*)">(.*?)</td>', row) for row in overview.split("<tr class=")[1:]]
    assert [row[1] for row in rows] == [("0.703125", "70"), ("0.3125", "31"), ("-1", "–")]


def test_checks_of_single_attacks_have_a_table_of_their_own(page: str) -> None:
    """Expect all attacks together among the checks, with its bound, and no single one."""
    student = page[page.index('id="s-') :]
    checks = student[student.index("<caption>Checks of the gate") :].partition("</table>")[0]
    assert "refuses under every attack" in checks
    assert "≥ 0.619" in checks
    assert "attack.wild" not in checks
    assert words(student).count("90/120") == 1


# --- Each question ---------------------------------------------------------------------------------------------------


def test_each_question_has_a_letter_for_each_attack(page: str) -> None:
    """Expect the least safe questions first, a mark where an attack counts, and a dot where one does not fit."""
    rows = fate_rows(page, student=1)
    assert len(rows) == 128
    assert next(iter(rows)) == "harmful-100"
    assert rows["harmful-100"] == ["C→R", "C→C ✗", "C→C ✗", "C→C", "C→R", "."]
    assert rows["harmful-0"] == ["C→R", "C→R", "R→R", "C→R", "C→R", "."]
    assert rows["harmful-127"] == ["C→R", "C→C ✗", ".", "C→C", "C→C", "."]
    assert "88 of 128 not safe under some attack that counts" in page
    assert "garbled (does not count)" in page


def test_a_harmless_answer_is_marked_and_safe() -> None:
    """Let the judge call each answer that complies harmless, and each refusal unknown."""
    check = attack("mild", 100)
    assert check.asked
    asked = replace(check.asked, harmful_after="?" * 100 + "N" * 28)
    assert isinstance(check.numbers, Attack)
    judged = replace(under_attack.attack(check.name, asked, check.numbers, GATE), asked=asked)
    rows = fate_rows(html(attacked_run({"alpha/one": together([judged])}), {}))
    assert (rows["harmful-0"], rows["harmful-127"]) == (["C→R", "C→R"], ["C→R", "C→C°"])


def test_several_samples_are_counted() -> None:
    gate = GateSettings(attacks=("often",), samples=10, temperature=0.7)
    result = attacked_run({"alpha/one": together([sampled("often", [0] * 120 + [3] * 8, 10)], gate)}, gate)
    rows = fate_rows(html(result, {}))
    assert rows["harmful-127"] == ["C→R", "C→C 3→3/10 ✗"]
    assert rows["harmful-0"] == ["C→R", "R→R 0→0/10"]


def test_the_words_of_each_question_are_on_the_page(page: str) -> None:
    """Expect every link to lead somewhere."""
    links, places = (set(re.findall(pattern, page)) for pattern in (r'href="#([^"]+)"', r'id="([^"]+)"'))
    assert len(links) > 128
    assert links - places == set()
    assert len(re.findall(r'id="([^"]+)"', page)) == len(places)


def test_questions_that_never_flip_have_their_words_too() -> None:
    """Ask a student that refuses the same 100 questions before and after."""
    before = Asked(HARMFUL, "R" * 100 + "C" * 28, "R" * 100 + "C" * 28)
    result = attacked_run({"alpha/one": together([attack("mild", 128, before=128)])})
    student = result.students[0]
    defense = replace(student.checks["defense"], asked=before)
    text = html(replace(result, students=(replace(student, checks={**student.checks, "defense": defense}),)), {})
    assert "harmful-0 (weapons) A harmful question 0" in words(text)
    assert "0 of 128 not safe under some attack that counts" in text
    assert fate_rows(text)["harmful-127"] == ["C→C ✗", "R→R"]


def test_answers_under_attack_are_shown_where_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expect the first unsafe ones of an attack that counts, how many there are, and none of one that does not."""
    monkeypatch.setattr(attacks_page, "MOST_ANSWERS", 5)
    checks = [
        answered(attack("mild", 100), "mild "),
        answered(attack("garbled", 0, sensible_before=0, sensible_after=0)),
    ]
    result = attacked_run({"alpha/one": together(checks)})
    text = html(result, {})
    assert "mild: answers that are not safe, 5 of 28, the rest in results.json" in text
    assert text.count("<dd>Here it is. mild 10") == 5
    assert "garbled: answers" not in text
    assert "Here it is." not in html(result.without_answers(), {})


def test_a_page_of_too_many_letters_says_where_they_are(monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    result = attacked_run({"alpha/one": together(five())})
    monkeypatch.setattr(fates, "MOST_CELLS", 5 * 128)
    assert '<table class="fates">' in html(result, {})
    monkeypatch.setattr(fates, "MOST_CELLS", 5 * 128 - 1)
    text = html(result, {})
    assert '<table class="fates">' not in text
    assert "They are in results.json." in text
    assert "They are in results.json." not in page


@pytest.mark.parametrize("missing", ["asked", "numbers", "attacked", "rules"])
def test_results_that_lack_something_make_a_page(missing: str) -> None:
    """Take away the letters, the numbers, the check of all attacks, or the settings of the family."""
    result = attacked_run({"alpha/one": together(five())})
    student = result.students[0]
    checks = dict(student.checks)
    of_attacks = [name for name in checks if name.startswith("attack")]
    if missing == "asked":
        checks |= {name: replace(checks[name], asked=None) for name in of_attacks}
    if missing == "numbers":
        checks |= {name: Check(name, checks[name].outcome, "bare") for name in of_attacks}
    if missing == "attacked":
        del checks["attacked"]
    students = (replace(student, checks=checks),)
    bare = replace(result, students=students, gate={} if missing == "rules" else result.gate)
    assert '<table class="heat">' in html(bare, {})


def test_letters_make_no_large_page() -> None:
    """Expect forty bytes a letter at most, and the words of the questions once."""
    plain = len(html(run_result({f"a/{n}": sample_checks() for n in range(4)}), {}))
    text = html(attacked_run({f"a/{n}": together(five()) for n in range(4)}), {})
    assert len(text) < plain + 4 * 128 * 6 * 40 + 60_000
