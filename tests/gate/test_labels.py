"""Check which answers are drawn for labels, and what a file of labels means."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from safety_harness.errors import DataError
from safety_harness.gate.asked import Asked
from safety_harness.gate.labels import COLUMNS, Labels, drawn, labelled, order, origins, read_labels, with_labels
from safety_harness.gate.redecide import redecide
from safety_harness.gate.results import Outcome, RunResult
from safety_harness.registry.settings import GateSettings
from tests.samples import ASKED, HARMFUL, answered, defense, run_result, sample_checks

QUESTIONS = ASKED[HARMFUL]


def asked_of(before: int, after: int) -> Asked:
    check = answered(defense(before, after))
    assert check.asked
    return check.asked


def labels_of(asked: Asked, count: int, letter: str = "", run: str = "run", annotator: str = "ann") -> Labels:
    """Return labels of the first *count* answers that are drawn: *letter*, or what the judge says."""
    labels = Labels(run)
    for one in drawn(asked, QUESTIONS, run)[:count]:
        judged = (asked.before if one.side == "before" else asked.after)[one.at]
        assert labels.add(one.digest, annotator, letter or ("y" if judged == "R" else "n")) == ""
    return labels


# --- What is drawn ----------------------------------------------------------------------------------------------------


def test_every_answer_is_drawn_once_and_flips_on_both_sides() -> None:
    asked = asked_of(100, 108)
    places = list(order(asked, "run"))
    assert len(places) == len(set(places)) == 128 + 8
    assert {at for side, at in places if side == "before"} == set(asked.flipped) == set(range(100, 108))
    assert places == list(order(asked, "run"))
    assert places != list(order(asked, "another"))


def test_all_flips_come_first_where_they_fit_into_half_the_sample() -> None:
    asked = asked_of(100, 108)
    first = set(list(order(asked, "run"))[:40])
    assert {(side, at) for at in asked.flipped for side in ("before", "after")} <= first
    assert {side for side, at in first if at not in asked.flipped} == {"after"}


def test_half_the_sample_is_of_flips_where_there_are_many() -> None:
    """Expect 25 of 50 labels to be those of pairs, and the others to be answers of any question."""
    places = list(order(asked_of(0, 120), "run"))[:40]
    sides = Counter(side for side, _ in places)
    assert sides["before"] == 10
    both = Counter(at for _, at in places)
    assert sum(count == 2 for count in both.values()) == 10


def test_the_labels_of_a_cell_are_a_random_sample_of_it() -> None:
    """Draw two thousand times: no question of a cell may come more often than another, wherever people stop."""
    asked = asked_of(60, 100)
    for stop in (13, 25, 50):
        drawn_often: Counter[int] = Counter()
        for run in range(2000):
            drawn_often.update(at for side, at in list(order(asked, str(run)))[:stop] if side == "after")
        for cell in (range(60), range(60, 100), range(100, 128)):
            counts = [drawn_often[at] for at in cell]
            mean = sum(counts) / len(counts)
            chi = sum((count - mean) ** 2 / (mean * (1 - mean / 2000)) for count in counts)
            # A chi-squared value has the number of its degrees as mean, and its double as variance.
            assert chi < len(counts) + 5 * (2 * len(counts)) ** 0.5


def test_answers_that_were_not_kept_cannot_be_drawn() -> None:
    asked = defense(0, 120).asked
    assert asked
    with pytest.raises(DataError, match="Run it again with --gate-include-answers"):
        drawn(asked, QUESTIONS, "run")
    with pytest.raises(DataError, match="keeps no answers"):
        drawn(asked_of(0, 120), QUESTIONS[:5], "run")


def test_a_digest_names_one_answer_of_one_side_to_one_question() -> None:
    asked = asked_of(3, 120)
    one = {each.digest for each in drawn(asked, QUESTIONS, "run")}
    other = {each.digest for each in drawn(replace(asked, set="z" * 64), QUESTIONS, "run")}
    assert not one & other
    assert len(one) == 128 + 117


# --- What labels say --------------------------------------------------------------------------------------------------


def test_labels_count_up_to_the_first_answer_that_nobody_saw() -> None:
    """Expect what lies behind a gap to be left out: whoever skips without saying so may have chosen."""
    asked = asked_of(100, 120)
    labels = labels_of(asked, 50)
    facts = labelled(asked, QUESTIONS, labels)
    assert facts
    assert (facts.labels, facts.unused, facts.skipped) == (50, 0, 0)
    del labels.of[drawn(asked, QUESTIONS, "run")[20].digest]
    facts = labelled(asked, QUESTIONS, labels)
    assert facts
    assert (facts.labels, facts.unused) == (20, 29)
    assert sum(cell.labelled for cell in facts.cells) <= 20
    del labels.of[drawn(asked, QUESTIONS, "run")[0].digest]
    assert labelled(asked, QUESTIONS, labels) is None


@pytest.mark.parametrize(
    ("said", "refuses", "disputed"),
    [
        ({"a": "y"}, True, False),
        ({"a": "p"}, False, False),
        ({"a": "n"}, False, False),
        ({"a": "s"}, False, False),
        ({"a": "y", "b": "s"}, True, False),
        ({"a": "y", "b": "n"}, False, True),
        ({"a": "y", "b": "p"}, False, True),
        ({"a": "n", "b": "p"}, False, False),
        ({"a": "y", "b": "n", "settled": "y"}, True, False),
        ({"a": "y", "b": "y", "settled": "n"}, False, False),
        ({"a": "y", "b": "y", "c": "n"}, False, True),
    ],
)  # fmt: skip
def test_only_what_all_call_a_refusal_is_one(said: dict[str, str], refuses: bool, disputed: bool) -> None:
    labels = Labels("run", {"x": said})
    assert (labels.refuses("x"), labels.disputed("x")) == (refuses, disputed)
    assert labels.refuses("y") is None


def test_skipped_and_disputed_answers_are_counted_and_refuse_nothing() -> None:
    asked = asked_of(0, 128)
    order_of = drawn(asked, QUESTIONS, "run")
    labels = labels_of(asked, 40)
    after = [one.digest for one in order_of[:40] if one.side == "after"]
    labels.of[after[0]] = {"ann": "s"}
    labels.of[after[1]] = {"ann": "y", "bob": "n"}
    labels.of[after[2]] = {"ann": "y", "bob": "y"}
    facts = labelled(asked, QUESTIONS, labels)
    assert facts
    assert (facts.labels, facts.skipped, facts.disputed) == (39, 1, 1)
    assert facts.both == [1, 0, 1, 0]
    assert facts.agreement.accuracy == 0.5
    assert facts.annotators == ["ann", "bob"]
    (gained,) = [cell for cell in facts.cells if cell.n]
    assert (gained.labelled, gained.refused) == (len(after), len(after) - 2)


def test_changed_verdicts_that_people_see_are_counted() -> None:
    asked = asked_of(0, 100)
    whole = labelled(asked, QUESTIONS, labels_of(asked, 50))
    never = labelled(asked, QUESTIONS, labels_of(asked, 50, "n"))
    assert whole
    assert never
    assert whole.flips == whole.confirmed == never.flips > 10
    assert never.confirmed == 0


def test_labels_of_a_student_judged_otherwise_now_do_not_count() -> None:
    """Expect an order by other verdicts to be another one: a sample for other cells is none of these."""
    asked = asked_of(0, 120)
    labels = labels_of(asked, 50)
    others = replace(asked, after="C" * 60 + "R" * 68)
    facts = labelled(others, QUESTIONS, labels)
    assert facts is None or facts.labels < 20


# --- Files ------------------------------------------------------------------------------------------------------------


def test_a_file_holds_no_text_and_reads_back(tmp_path: Path) -> None:
    labels = labels_of(asked_of(0, 120), 30)
    labels.add(next(iter(labels.of)), "b,ob", "p")
    file = tmp_path / "labels.csv"
    file.write_text(labels.text())
    assert read_labels(file) == labels
    assert file.read_text().startswith(",".join(COLUMNS) + "\n")
    assert not any(word in file.read_text() for word in ("harmful", "I will", "Here it is", "before", "after"))
    file.write_text("\ufeff" + labels.text().replace('"b,ob"', "bob").replace(",", ";").replace("label\n", "Label\n"))
    assert read_labels(file).annotators == ["ann", "bob"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column 'run'"),
        ("run,answer,annotator\nr,a,b\n", "has no column 'label'"),
        ("run,answer,annotator,label\n", "holds no labels"),
        ("run,answer,annotator,label\nr,a,ann,maybe\n", "line 2: 'maybe' is no label"),
        ("run,answer,annotator,label\nr,a,ann,\n", "line 2: '' is no label"),
        ("run,answer,annotator,label\nr,a,,y\n", "line 2: the annotator '' is no name"),
        ("run,answer,annotator,label\nr,a,=ann,y\n", "line 2: the annotator '=ann' is no name"),
        ("run,answer,annotator,label\nr,a,ann,y\nr,a,ann,n\n", "line 3: ann labelled the same answer y and n"),
        ("run,answer,annotator,label\nr,a,ann,y\nq,b,ann,n\n", "line 3: is of another run"),
        ('run,answer,annotator,label\nr,"a,ann,y\n', "not CSV"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        read_labels(file)


def test_the_same_label_twice_is_one(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("run,answer,annotator,label\nr,a,ann,y\nr,a,ann,Y\n")
    assert read_labels(file).of == {"a": {"ann": "y"}}


# --- A run ------------------------------------------------------------------------------------------------------------


def run_of(after: int = 120) -> RunResult:
    return run_result({"a/one": [answered(defense(0, after)), *sample_checks()[1:]]})


def of_run(run: RunResult, count: int, letter: str = "") -> Labels:
    asked = run.students[0].checks["defense"].asked
    assert asked
    return labels_of(asked, count, letter, origins(run)[0])


def test_a_run_is_decided_again_by_its_labels() -> None:
    run = run_of()
    assert redecide(run, {}, "r", of_run(run, 60)).outcome is Outcome.PASS
    again = redecide(run, {}, "r", of_run(run, 60, "n"))
    assert again.outcome is Outcome.FAIL
    assert "DSR 0.000 by 60 labels" in again.reasons[0]
    more = redecide(again, {}, "r", of_run(again, 100))
    assert more.outcome is Outcome.PASS
    assert origins(more)[0] == run.sha256
    assert redecide(redecide(run, {"dsr": 0.5}, "r"), {}, "s", of_run(run, 60)).outcome is Outcome.PASS


def test_labels_of_another_run_are_refused() -> None:
    run, other = run_of(), run_of(119)
    with pytest.raises(DataError, match="of another run"):
        redecide(other, {}, "r", of_run(run, 60))
    with pytest.raises(DataError, match="keeps no answers"):
        redecide(run.without_answers(), {}, "r", of_run(run, 60))


def test_a_check_without_labels_of_its_own_stays_as_it_is() -> None:
    check = answered(defense(0, 120))
    assert with_labels(check, QUESTIONS, Labels("run", {"x": {"ann": "y"}}), GateSettings()) is check
    bare = defense(0, 120)
    assert with_labels(bare, QUESTIONS, Labels("run", {"x": {"ann": "y"}}), GateSettings()) is bare
