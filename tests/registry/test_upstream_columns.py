"""Read well-known question sets in upstream's own columns. The questions here are our own, and harmless."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safety_harness.errors import DataError
from safety_harness.registry.columns import Columns
from safety_harness.registry.prompts import read_prompts

TWO = ["How do bees fly?", "Name a river, a hill and a town"]
ROWS = {
    "advbench.csv": 'goal,target\nHow do bees fly?,Sure\n"Name a river, a hill and a town",Sure\n',
    "harmbench.csv": "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\n"
    'How do bees fly?,standard,insects,,,bees_fly\n"Name a river, a hill and a town",standard,places,,,name_river\n',
    "jailbreakbench.csv": "Index,Goal,Target,Behavior,Category,Source\n"
    '0,How do bees fly?,Sure,Bees,insects,Original\n1,"Name a river, a hill and a town",Sure,River,places,Original\n',
    "strongreject.csv": "category,source,forbidden_prompt\ninsects,custom,How do bees fly?\n"
    'places,custom,"Name a river, a hill and a town"\n',
    "xstest.csv": "id,prompt,type,label,focus,note\n1,How do bees fly?,insects,safe,fly,\n"
    '2,"Name a river, a hill and a town",places,safe,,\n',
    "orbench.tsv": "prompt\tcategory\nHow do bees fly?\tinsects\nName a river, a hill and a town\tplaces\n",
    "simplesafetytests.csv": "id,harm_area,counter,category,prompts_final\n"
    "sst_001,insects,1,Information,How do bees fly?\n"
    'sst_002,places,2,Information,"Name a river, a hill and a town"\n',
    "donotanswer.csv": "id;risk_area;types_of_harm;specific_harms;question\n1;insects;a;b;How do bees fly?\n"
    "2;places;a;b;Name a river, a hill and a town\n",
    "sorrybench.jsonl": '{"question_id": 1, "category": "insects", "turns": ["How do bees fly?"]}\n'
    '{"question_id": 2, "category": "places", "turns": ["Name a river, a hill and a town"]}\n',
    "coconot.jsonl": '{"id": "x1", "category": "Requests", "subcategory": "insects", "prompt": "How do bees fly?"}\n'
    '{"id": "x2", "category": "Requests", "subcategory": "places", "prompt": "Name a river, a hill and a town"}\n',
    "shouted.csv": 'ID,PROMPT,CATEGORY\n1,How do bees fly?,insects\n2,"Name a river, a hill and a town",places\n',
}  # fmt: skip


def write(folder: Path, name: str, content: str) -> Path:
    """Write a file to *folder*."""
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("name", ROWS)
def test_a_set_is_read_as_upstream_publishes_it(tmp_path: Path, name: str) -> None:
    """Read texts and categories. AdvBench has no categories."""
    prompts = read_prompts(write(tmp_path, name, ROWS[name]))
    assert prompts.texts == TWO
    expected = ["", ""] if name == "advbench.csv" else ["insects", "places"]
    assert [prompt.category for prompt in prompts] == expected


def test_a_language_is_a_column(tmp_path: Path) -> None:
    """Read MultiJail's table, which begins with a byte order mark."""
    table = "\ufeffid,source,tags,en,zh\n0,a,['insects'],How do bees fly?,蜜蜂如何飞行\n"
    file = write(tmp_path, "multijail.csv", table)
    assert read_prompts(file, columns=Columns("EN")).texts == TWO[:1]
    (prompt,) = read_prompts(file, columns=Columns("zh"))
    assert (prompt.text, prompt.id, prompt.category) == ("蜜蜂如何飞行", "0", "['insects']")


def test_pyrits_first_kind_of_harm_is_the_category(tmp_path: Path) -> None:
    seeds = "seeds:\n- value: How do bees fly?\n  harm_categories:\n  - insects\n  - wings\n- value: Name a river\n"
    prompts = read_prompts(write(tmp_path, "a.prompt", seeds))
    assert [prompt.category for prompt in prompts] == ["insects", ""]


def test_rows_are_chosen_by_a_column(tmp_path: Path) -> None:
    """Tell both kinds of XSTest apart, in whatever case, and several values."""
    table = "id,prompt,type,label\n1,one,a,safe\n2,two,contrast_a,unsafe\n3,three,b,Safe\n"
    file = write(tmp_path, "x.csv", table)
    rows = "".join(json.dumps({"prompt": text, "Label": kind}) + "\n" for text, kind in (("one", "safe"), ("two", 3)))
    lines = write(tmp_path, "x.jsonl", rows)
    assert read_prompts(file, columns=Columns(where=(("label", ("safe",)),))).texts == ["one", "three"]
    assert read_prompts(file, columns=Columns(where=(("TYPE", ("contrast_a", "b")),))).texts == ["two", "three"]
    assert read_prompts(file, columns=Columns(where=(("label", ("safe",)), ("type", ("b",))))).texts == ["three"]
    assert read_prompts(lines, columns=Columns(where=(("label", ("3",)),))).texts == ["two"]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_an_answer_is_read_from_the_column_that_is_named(tmp_path: Path, ending: str) -> None:
    """Read GSM8K's answers, which are behind the steps that lead to them. Unasked, no CSV file has answers."""
    steps = "Three and one is <<3+1=4>>4.\n#### 4"
    content = {
        "csv": f'question,answer\n3 + 1 = ?,"{steps}"\n',
        "jsonl": json.dumps({"question": "3 + 1 = ?", "answer": steps}) + "\n",
    }[ending]
    file = write(tmp_path, f"g.{ending}", content)
    assert [prompt.answer for prompt in read_prompts(file, columns=Columns(answer="Answer"))] == ["4"]
    assert [prompt.answer for prompt in read_prompts(file)] == {"csv": [None], "jsonl": ["4"]}[ending]


@pytest.mark.parametrize("mark", [";", "\t", ","])
def test_cells_may_be_separated_by_other_marks(tmp_path: Path, mark: str) -> None:
    """Read what a spreadsheet writes where the comma is a decimal mark."""
    rows = [["id", "text", "category"], ["1", f'"one{mark}""two"""', "a"], ["2", '"three\nfour"', ""]]
    file = write(tmp_path, "a.csv", "\n".join(mark.join(row) for row in rows) + "\n")
    assert read_prompts(file).texts == [f'one{mark}"two"', "three\nfour"]


def test_a_published_set_may_repeat_itself(tmp_path: Path) -> None:
    """Keep the first of two, but refuse two answers to one question. A file of the user's own is to be mended."""
    file = write(tmp_path, "a.jsonl", '{"id": "1", "text": "one"}\n{"id": "2", "text": "two"}\n{"text": "One?"}\n')
    with pytest.raises(DataError, match="prompt 3 repeats prompt 1"):
        read_prompts(file)
    file = write(tmp_path, "b.csv", "text\none\ntwo\nOne?\n")
    assert read_prompts(file, once_each=True).texts == ["one", "two"]
    file = write(tmp_path, "c.jsonl", '{"text": "one", "answer": "1"}\n{"text": "One", "answer": "2"}\n')
    with pytest.raises(DataError, match="prompt 2 repeats prompt 1"):
        read_prompts(file, once_each=True)


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("a.csv", "text\nx\n", Columns("en"), r"a.csv: no column is named en; it has .'text'"),
        ("a.csv", "text\nx\n", Columns(where=(("label", ("safe",)),)), "line 2: no column is named 'label'; it has"),
        ("a.csv", "text\nx\n", Columns(answer="right"), "line 2: no column is named 'right'"),
        ("a.csv", "text,label\nx,safe\n", Columns(where=(("label", ("a", "b")),)), "no row has label = a or b"),
        ("a.csv", "question,instruction\nx,y\n", Columns(), "line 1: has question and instruction.*`column`"),
        ("a.csv", "Goal,GOAL\nx,y\n", Columns(), "line 1: has Goal and GOAL"),
        ("a.jsonl", '{"text": "x"}\n', Columns("en"), 'line 1: expected an object with a string "en"'),
        ("a.jsonl", '{"en": "x"}\n', Columns("en", where=(("l", ("s",)),)), "line 1: no column is named 'l'"),
        ("a.jsonl", '{"turns": ["x", "y"]}\n', Columns(), 'line 1: expected an object with a string "text"'),
        ("a.jsonl", '{"text": "x", "a": 3}\n', Columns(answer="a"), 'line 1: "a" must be a string'),
        ("a.txt", "x\n", Columns("en"), "a.txt: a .txt file has no columns to choose from"),
        ("a.yaml", "seeds: [{value: x}]", Columns(where=(("l", ("s",)),)), "a .yaml file has no columns"),
    ],
)  # fmt: skip
def test_a_column_that_is_not_there_is_named(
    tmp_path: Path, name: str, content: str, columns: Columns, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_prompts(write(tmp_path, name, content), columns=columns)
