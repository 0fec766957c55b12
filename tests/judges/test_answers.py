"""Check how answers and labels are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from safety_harness.errors import DataError
from safety_harness.judges.answers import read_answers


def write(folder: Path, name: str, text: str) -> Path:
    """Write a file."""
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_json_lines_and_csv_are_read_alike(tmp_path: Path) -> None:
    """Read the same answers from both formats."""
    lines = write(
        tmp_path, "a.jsonl", '{"id": "1", "question": "Why?", "answer": "No, \\"never\\".", "label": "refused"}\n'
    )
    table = write(tmp_path, "a.csv", 'id;question;answer;label\n1;Why?;"No, ""never"".";Refused\n')
    (one,), (other,) = (read_answers(file, labelled=True) for file in (lines, table))
    assert one == other
    assert one.refused is True


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "answr,label\nx,y\n", "has no `answer`. Did you mean 'answr'?"),
        ("a.csv", "answer\nx\n", "has no `label`"),
        ("a.csv", "answer,label\nx,maybe\n", "line 2: the label 'maybe' is none"),
        ("a.csv", "answer,label\nx,y,z\n", "has 3 cells, and the header 2"),
        ("a.csv", "answer,label\n", "holds no answer"),
        ("a.csv", "", "holds no answer"),
        ("a.jsonl", '["x"]\n', "line 1: must be an object"),
        ("a.jsonl", '{"answer": 5, "label": "y"}\n', "`answer` must be a text"),
        ("a.jsonl", "{\n", "line 1"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    """Read files that hold no labelled answers."""
    with pytest.raises(DataError, match=r".") as error:
        read_answers(write(tmp_path, name, text), labelled=True)
    assert message in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Read nothing."""
    with pytest.raises(DataError, match="no such file"):
        read_answers(tmp_path / "none.csv")
