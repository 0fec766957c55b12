"""Label answers of a run: blind, resumable, by two people, in the terminal and in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from safety_harness.cli.main import main
from safety_harness.gate.labels import Labels, read_labels
from safety_harness.gate.reading import read_results
from safety_harness.gate.results import Outcome, RunResult
from tests.samples import answered, defense, run_result, sample_checks

Typed = Callable[..., tuple[int, str, str]]


def run_of(**refused: int) -> RunResult:
    """Return a run of one family; *refused* says how many questions each student refuses after patching."""
    named = refused or {"one": 120}
    return run_result({f"a/{name}": [answered(defense(0, n), name), *sample_checks()[1:]] for name, n in named.items()})


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with answers, in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("results.json").write_text(run_of().to_json())
    return Path("results.json")


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, results: Path) -> Typed:
    """Run ``label`` with its arguments and what a person types, a word a line."""

    def run(*arguments: str, says: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{word}\n" for word in says.split())))
        code = main(["label", str(results), *arguments])
        written = capsys.readouterr()
        return code, written.out, written.err

    return run


def rows(file: str) -> list[dict[str, str]]:
    with Path(file).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def fill(sheet: str, label: Callable[[int, dict[str, str]], str], to: str = "filled.csv", mark: str = ",") -> str:
    """Write the rows of a *sheet* with labels, as a spreadsheet would with *mark* between cells."""
    found = rows(sheet)
    with Path(to).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(found[0]), delimiter=mark)
        writer.writeheader()
        writer.writerows({**row, "label": label(at, row)} for at, row in enumerate(found))
    return to


def as_it_reads(_: int, row: dict[str, str]) -> str:
    return "y" if "will not" in row["text"] else "n"


def test_answers_are_shown_without_whose_they_are_or_how_judged(typed: Typed) -> None:
    code, out, err = typed("--k", "8", says="y n p s y n y n")
    assert (code, err) == (0, "")
    assert out.startswith("8 answers of 1 student: ")
    assert "[8 of 8]" in out
    assert "a/one" not in out
    assert not any(word in out.lower() for word in ("before", "after", "refused", "complied"))
    assert [row["label"] for row in rows("labels.csv")] == ["y", "n", "p", "s", "y", "n", "y", "n"]
    assert "first has seen 8 of 8" in out
    assert "report results.json --labels labels.csv" in out


def test_what_was_labelled_is_kept_and_not_asked_again(typed: Typed) -> None:
    """Stop by `q` and by the end of the input, mistype, and go on with a larger sample."""
    _, out, _ = typed("--k", "10", says="y Y yes q")
    assert "'yes' is none of them" in out
    assert [row["label"] for row in rows("labels.csv")] == ["y", "y"]
    _, out, _ = typed("--k", "10", says="n")
    assert "[1 of 8]" in out
    _, out, _ = typed("--k", "12", says=" ".join("n" * 9))
    assert len({row["answer"] for row in rows("labels.csv")}) == 12
    _, out, _ = typed("--k", "12")
    assert "Question" not in out


def test_an_interrupt_costs_no_label(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["y", "n"])

    def answer(_: str) -> str:
        if (given := next(answers, None)) is None:
            raise KeyboardInterrupt
        return given

    monkeypatch.setattr("builtins.input", answer)
    code, _, err = typed()
    assert code == 130
    assert "What was finished is kept" in err
    assert len(rows("labels.csv")) == 2


def test_a_second_annotator_gets_the_same_sample(typed: Typed) -> None:
    """Expect the agreement, no answer in it, and a third person to be asked about the dispute alone."""
    typed("--k", "4", says="y y n n")
    _, out, _ = typed("--k", "4", "--annotator", "bob", says="y n n p")
    assert "first and bob agree on 0.75 of 4 answers, kappa 0.50." in out
    assert "1 are labelled differently. They count as no refusal until settled" in out
    kept = [(row["annotator"], row["answer"]) for row in rows("labels.csv")]
    assert {answer for who, answer in kept if who == "first"} == {answer for who, answer in kept if who == "bob"}
    _, out, _ = typed("--k", "4", "--annotator", "settled", says="y")
    assert "[1 of 1]" in out
    assert "agree" not in out
    labels = read_labels(Path("labels.csv"))
    assert [labels.disputed(one) for one in labels.of] == [False] * 4
    assert sum(bool(labels.refuses(one)) for one in labels.of) == 2


def test_students_are_mixed_and_can_be_chosen(typed: Typed, results: Path) -> None:
    results.write_text(run_of(one=120, two=118).to_json())
    _, out, _ = typed("--k", "20", "--csv", "both.csv")
    assert "of 2 students" in out
    whose = [row["text"].split()[-1][:3] for row in rows("both.csv")]
    assert {"one", "two"} <= set(whose)
    assert whose != sorted(whose)
    typed("--k", "20", "--student", "two", "--csv", "one.csv")
    assert len(rows("one.csv")) == 20
    assert not any(row["text"].split()[-1].startswith("one") for row in rows("one.csv"))
    assert typed("--student", "tow")[2].endswith("Did you mean 'two'?\n")


# --- A spreadsheet ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_sheet_is_written_and_read(typed: Typed, mark: str) -> None:
    code, out, _ = typed("--k", "30", "--csv", "sheet.csv")
    assert code == 0
    assert "fill the column label with y (refuses), n (does not)" in out
    assert not Path("labels.csv").exists()
    sheet = rows("sheet.csv")
    assert set(sheet[0]) == {"run", "answer", "question", "text", "label"}
    assert {row["label"] for row in sheet} == {""}
    code, out, _ = typed("--k", "30", "--read", fill("sheet.csv", as_it_reads, mark=mark))
    assert code == 0
    assert "first has seen 30 of 30" in out
    assert len(rows("labels.csv")) == 30
    typed("--k", "30", "--csv", "rest.csv")
    assert rows("rest.csv") == []


def test_no_cell_of_a_sheet_is_a_formula(typed: Typed, results: Path) -> None:
    run = run_of()
    check = run.students[0].checks["defense"]
    assert check.asked
    evil = tuple('=HYPERLINK("http://x")\n\x1b[2J' for _ in check.asked.after)
    check = replace(check, asked=replace(check.asked, answers_after=evil, answers_before=evil))
    results.write_text(run_result({"a/one": [check, *sample_checks()[1:]]}).to_json())
    typed("--csv", "sheet.csv")
    assert all(row["text"].startswith("'=HYPERLINK") for row in rows("sheet.csv"))
    _, out, _ = typed("--k", "1", says="q")
    assert "\x1b" not in out


def test_a_bad_row_costs_no_other(typed: Typed) -> None:
    """Expect the good rows to be kept, the bad ones to be named by their lines, and a mended sheet to be taken."""
    typed("--k", "20", "--csv", "sheet.csv")

    def slips(at: int, row: dict[str, str]) -> str:
        return {2: "refuses", 3: "?"}.get(at, as_it_reads(at, row))

    code, _, err = typed("--k", "20", "--read", fill("sheet.csv", slips))
    assert code == 2
    assert "2 rows not taken, and 18 kept in labels.csv. line 4: 'refuses' is no label." in err
    assert "line 5: '?'" in err
    assert len(rows("labels.csv")) == 18
    code, *_ = typed("--k", "20", "--read", fill("sheet.csv", as_it_reads))
    assert code == 0
    assert len(rows("labels.csv")) == 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column 'run'"),
        ("run,answer,text\nr,a,t\n", "has no column 'label'"),
        ("run,answer,label\nr,a,\n", "no row has a label"),
        ("run,answer,label\n", "no row has a label"),
        ("run,answer,label\nr,a,y\n", "line 2: is of another run"),
        ("run,answer,label\nRUN,a,y\n", "line 2: is about no answer that was drawn"),
        ("run,answer,label\nRUN,DIGEST,y\nRUN,DIGEST,n\n", "line 3: first labelled the same answer y and n"),
    ],
)
def test_a_wrong_sheet_is_refused(typed: Typed, text: str, message: str) -> None:
    typed("--csv", "sheet.csv")
    row = rows("sheet.csv")[0]
    Path("wrong.csv").write_text(text.replace("RUN", row["run"]).replace("DIGEST", row["answer"]))
    code, _, err = typed("--read", "wrong.csv")
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


# --- What cannot be labelled ------------------------------------------------------------------------------------------


def test_a_run_without_answers_is_refused(typed: Typed, results: Path) -> None:
    results.write_text(run_of().without_answers().to_json())
    code, _, err = typed(says="y")
    assert code == 2
    assert "keeps no answers to label. Run it again with --gate-include-answers" in err
    assert not Path("labels.csv").exists()


def test_labels_of_another_run_stop_before_anything_is_asked(typed: Typed) -> None:
    Path("labels.csv").write_text(Labels("other", {"x": {"ann": "y"}}).text())
    before = Path("labels.csv").read_bytes()
    code, out, err = typed(says="y y y")
    assert code == 2
    assert "the labels are of another run: they name 'other'" in err
    assert "Question" not in out
    assert Path("labels.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--annotator", "=cmd"), "--annotator '=cmd' is no name"),
        (("--annotator", ""), "--annotator '' is no name"),
        (("--student", "nobody"), "--student 'nobody': not known. The run has a/one."),
        (("--out", "results.json/labels.csv"), "results.json"),
        (("--read", "gone.csv"), "gone.csv: cannot be read as labels"),
    ],
)
def test_wrong_arguments_are_one_line(typed: Typed, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = typed(*arguments, says="y")
    assert code == 2
    assert message in err
    assert "Question" not in out


# --- The report -------------------------------------------------------------------------------------------------------


def test_a_report_is_decided_by_labels(typed: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    """Expect raw, corrected and labelled rates in each format, who labelled, and the run's own files untouched."""
    typed("--k", "60", "--csv", "sheet.csv")
    typed("--k", "60", "--read", fill("sheet.csv", as_it_reads), "--annotator", "ann")

    def once_otherwise(at: int, row: dict[str, str]) -> str:
        said = as_it_reads(at, row)
        return {"y": "n", "n": "y"}[said] if at == 3 else said

    typed("--k", "60", "--read", fill("sheet.csv", once_otherwise), "--annotator", "bob")
    before = Path("results.json").read_bytes()
    assert main(["report", "results.json", "--labels", "labels.csv"]) == 0
    text = capsys.readouterr().out
    assert "The DSR is decided by people's labels on some of the answers. a/one." in text
    assert "60 labels by ann, bob; two people agree on 0.98 of 60, kappa 0.9" in text
    assert "On answers like these, people call" in text
    assert "By 60 labels of people, between" in text
    assert main(["report", "results.json", "--labels", "labels.csv", "--to", "json,html,csv,md", "--out", "new"]) == 0
    run = read_results(Path("new/results.json"))
    assert run.outcome is Outcome.PASS
    assert "by 60 labels" in run.students[0].checks["defense"].summary
    (row,) = rows("new/report.csv")
    assert float(row["DSR labelled, lower"]) < float(row["defense after, lower"]) < float(row["DSR labelled"])
    assert row["labels"] == "60"
    assert float(row["DSR corrected, lower"]) > 0
    page = Path("new/report.html").read_text()
    assert "DSR, by people&#39;s labels" in page
    assert "On answers like these, people call" in page
    assert not any(word in page for word in ("I will not say", "Here it is"))
    assert Path("results.json").read_bytes() == before


def test_a_report_without_labels_names_the_command(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(results)]) == 0
    text = capsys.readouterr().out
    assert "How far the judge is to be trusted on these answers was not measured." in text
    assert "safety-harness label RESULTS" in text


def test_labels_that_are_demanded_and_missing_are_inconclusive(
    typed: Typed, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Expect exit code 1 until enough answers are labelled, and labels that match nothing to be said."""
    assert main(["report", str(results), "--gate-human-labels", "30"]) == 1
    assert "0 of 30 answers are labelled by people" in capsys.readouterr().out
    typed("--k", "30", "--csv", "sheet.csv")
    typed("--k", "30", "--read", fill("sheet.csv", as_it_reads))
    labels = read_labels(Path("labels.csv"))
    labels.add("0" * 64, "ann", "y")
    Path("labels.csv").write_text(labels.text())
    assert main(["report", str(results), "--gate-human-labels", "30", "--labels", "labels.csv"]) == 0
    assert "labels.csv: 1 of 31 labelled answers match no answer here" in capsys.readouterr().err
    assert main(["report", str(results), "--gate-human-labels", "31", "--labels", "labels.csv"]) == 1
    assert "30 of 31 answers are labelled by people" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "gone.csv"], "gone.csv: cannot be read as labels"),
        (["--labels", "results.json"], "results.json: "),
        (["--labels", "other.csv"], "of another run"),
        (["--labels", "labels.csv", "--to", "html"], "name another folder with --out"),
    ],
)
def test_a_report_refuses_wrong_labels(
    typed: Typed, results: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    typed("--k", "4", says="y y y y")
    Path("other.csv").write_text(Labels("other", {"x": {"ann": "y"}}).text())
    before = sorted(Path().iterdir())
    assert main(["report", str(results), *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert sorted(Path().iterdir()) == before
