"""Check that each format is read, each fault is named with its file and place, and both splits are kept apart."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from safety_harness.errors import DataError
from safety_harness.files import sha256_text
from safety_harness.registry.prompts import (
    Prompt,
    PromptSet,
    check_disjoint,
    prompt_set,
    read_prompts,
    without_near_duplicates,
)

TWO = ("how do bees fly ?", "how do fish swim ?")


def texts(*given: str) -> PromptSet:
    """Make a prompt set of these texts."""
    return prompt_set("set", (Prompt(str(number), text) for number, text in enumerate(given)))


# --- Formats ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text": "how do bees fly ?"}\n{"text": "how do fish swim ?"}\n'),
        ("a.txt", "how do bees fly ?\nhow do fish swim ?\n"),
        ("a.txt", "how do bees fly ?\r\nhow do fish swim ?\r\n"),
        ("a.csv", "id,text\n1,how do bees fly ?\n2,how do fish swim ?\n"),
        ("a.csv", "prompt\nhow do bees fly ?\nhow do fish swim ?\n"),
        ("a.csv", "goal,target\nhow do bees fly ?,Sure\nhow do fish swim ?,Sure\n"),
        ("a.yaml", "seeds:\n- value: how do bees fly ?\n- value: how do fish swim ?\n"),
        ("a.yml", 'seeds: [{value: "how do bees fly ?"}, {value: "how do fish swim ?"}]'),
        ("a.prompt", "name: bees\nseeds:\n- value: how do bees fly ?\n- value: how do fish swim ?\n"),
        ("A.TXT", "how do bees fly ?\nhow do fish swim ?\n"),
    ],
)
def test_every_format_gives_the_same_texts(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, newline="")
    assert read_prompts(tmp_path / name).texts == list(TWO)


def test_jsonl_keeps_ids_and_answers(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 7, "text": "2 + 2 ?", "answer": "4"}\n')
    assert read_prompts(tmp_path / "a.jsonl").prompts == (Prompt("7", "2 + 2 ?", "4"),)


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ('{"text": "x", "prompt": "y"}', Prompt("a", "x")),
        ('{"goal": {"z": 1}, "text": "x", "prompt": 3}', Prompt("a", "x")),
        ('{"text": "x", "score": NaN, "more": [{"at": -Infinity}, Infinity]}', Prompt("a", "x")),
        ('{"id": 1.0, "text": "x"}', Prompt("1.0", "x")),
        ('{"id": -7e3, "text": "x"}', Prompt("-7000.0", "x")),
        ('{"id": 0, "text": "x"}', Prompt("0", "x")),
        ('{"id": "nan", "text": "x"}', Prompt("nan", "x")),
        ('{"id": "", "text": "x"}', Prompt("a", "x")),
        ('{"text": "x", "category": ["é", "b"]}', Prompt("a", "x", None, '["é", "b"]')),
        ('{"text": "x", "category": 0}', Prompt("a", "x", None, "0")),
        ('{"text": "x", "category": 2.5}', Prompt("a", "x", None, "2.5")),
        ('{"text": "x", "category": true}', Prompt("a", "x", None, "true")),
        ('{"text": "x", "category": {"a": null}}', Prompt("a", "x", None, '{"a": null}')),
        ('{"text": "x", "category": []}', Prompt("a", "x")),
        ('{"text": "x", "category": {}}', Prompt("a", "x")),
        ('{"text": "x", "category": null}', Prompt("a", "x")),
    ],
)
def test_a_row_of_json_may_hold_more_than_is_asked(tmp_path: Path, row: str, prompt: Prompt) -> None:
    """Read rows as pandas and data sets write them. The id "a" stands for that of a text without one."""
    (tmp_path / "a.jsonl").write_text(row + "\n", encoding="utf-8")
    expected = replace(prompt, id=sha256_text("x")[:12]) if prompt.id == "a" else prompt
    assert read_prompts(tmp_path / "a.jsonl").prompts == (expected,)


@pytest.mark.parametrize(
    "content",
    [
        "id,text,\n1,one,\n2,two,\n",
        "text,,,\none,,,\ntwo,,,\n",
        ',text,\n0,one,\n1,two,""\n',
        "text,\none,\ntwo\n",
    ],
)
def test_columns_at_the_right_may_be_empty(tmp_path: Path, content: str) -> None:
    """Read what Excel writes, which also leaves the last commas out of some rows."""
    (tmp_path / "a.csv").write_text(content)
    assert read_prompts(tmp_path / "a.csv").texts == ["one", "two"]


def test_an_empty_cell_is_no_id(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n,one\n ,two\n3,three\n")
    ids = [prompt.id for prompt in read_prompts(tmp_path / "a.csv")]
    assert ids == [sha256_text("one")[:12], sha256_text("two")[:12], "3"]


def test_without_an_id_a_prompt_is_named_by_its_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TWO[0])
    assert read_prompts(tmp_path / "a.txt").prompts[0].id == sha256_text(TWO[0])[:12]


def test_a_csv_field_may_hold_commas_and_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text\n"one, two\nand three"\n')
    assert read_prompts(tmp_path / "a.csv").texts == ["one, two\nand three"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt"])
def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path, name: str) -> None:
    content = {"a.jsonl": '{"text": "hi"}\n', "a.csv": "text\nhi\n", "a.txt": "hi\n"}[name]
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert read_prompts(tmp_path / name).texts == ["hi"]


def test_only_a_newline_ends_a_line_of_json(tmp_path: Path) -> None:
    """Read U+2028, a line break to str.splitlines and an ordinary character of a JSON string."""
    (tmp_path / "a.jsonl").write_text('{"text": "one\u2028two"}\n', encoding="utf-8")
    assert read_prompts(tmp_path / "a.jsonl").texts == ["one\u2028two"]


def test_rows_may_be_numbered_in_a_column_without_a_name(tmp_path: Path) -> None:
    """Read what pandas writes."""
    (tmp_path / "a.csv").write_text(',prompt\n0,"one, two"\n1,"say ""x"""\n\n')
    assert read_prompts(tmp_path / "a.csv").texts == ["one, two", 'say "x"']


def test_a_seed_may_have_any_other_key(tmp_path: Path) -> None:
    """Read text in every style of YAML, next to values that are none."""
    seeds = "- value: 'it''s'\n  at: 2024-01-01\n- value: |\n    one\n    two\n  n: [1, {a: b}]\n- {value: !!str 3}\n"
    (tmp_path / "a.yaml").write_text(f"name: x\ndate: 2024-99-99\nseeds:\n{seeds}")
    assert read_prompts(tmp_path / "a.yaml").texts == ["it's", "one\ntwo\n", "3"]


def test_a_seed_may_say_that_it_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "data_type: image_path\nseeds:\n- {value: x, data_type: text}\n- {value: y, data_type: null}\n"
    )
    assert read_prompts(tmp_path / "a.yaml").texts == ["x", "y"]


def test_a_file_of_too_many_prompts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safety_harness.registry.prompts.MOST_PROMPTS", 2)
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    assert len(read_prompts(tmp_path / "a.txt")) == 2
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    with pytest.raises(DataError, match="holds more than 2 prompts"):
        read_prompts(tmp_path / "a.txt")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt", "a.yaml"])
def test_an_endless_device_is_no_prompt_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(DataError, match=rf"{name}: cannot be read .it is a pipe or a device"):
        read_prompts(tmp_path / name)


# --- Faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": \n', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", '{"text": "x"}\n\n{"text": "y"}\n', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", '{"query": "x"}\n', 'a.jsonl, line 1: expected an object with a string "text"'),
        ("a.jsonl", '{"goal": "x", "prompt": "y"}', "line 1: has goal and prompt, and one of them is asked"),
        ("a.jsonl", '{"text": 3}\n', 'line 1: expected an object with a string "text"'),
        ("a.jsonl", '["x"]\n', "line 1: expected an object"),
        ("a.jsonl", '{"text": "x"}\n{"text": "y \\ud83d"}\n', "line 2: not JSON .it holds half of a character"),
        ("a.jsonl", '{"text": "x", "answer": "\\udc00"}\n', "line 1: not JSON .it holds half of a character"),
        ("a.yaml", 'seeds:\n- value: "y \\ud83d"\n', "not YAML .*invalid Unicode .* line 2"),
        ("a.jsonl", '{"text": "x"}\n{"text": "y", "answer": 4}\n', 'line 2: "answer" must be a string'),
        ("a.jsonl", '{"text": "x", "answer": " "}\n', 'line 1: "answer" must be a string that is not empty'),
        ("a.jsonl", "", "a.jsonl: holds no prompts"),
        ("a.txt", "", "a.txt: holds no prompts"),
        ("a.csv", "", "no column is named text or prompt or goal"),
        ("a.csv", "query,answer\nx,y\n", r"named text or prompt or goal; it has \['query', 'answer'\].*`column`"),
        ("a.csv", "text\n", "a.csv: holds no prompts"),
        ("a.csv", f"text\nx\n{'y' * 200_000}\n", "a.csv, line 3: not CSV"),
        ("a.csv", "prompt\nexplain this, then that\n", "line 2: has 2 cells, and the header 1"),
        ("a.csv", "id,prompt\n1,x\n2,explain this, then that\n", "line 3: has 3 cells, and the header 2"),
        ("a.csv", "id,prompt\n1,x\n2\n", "line 3: has 1 cells, and the header 2"),
        ("a.csv", 'text\n"one\nline"\n"x\n', "line 4: not CSV"),
        ("a.csv", 'text\nsay "x"\n', "line 2: not CSV .a quotation mark inside a cell"),
        ("a.csv", 'text,category\n "this, then that"\n', "line 2: not CSV"),
        ("a.csv", 'text\n"x" y\n', "line 2: not CSV"),
        ("a.csv", 'text\n"x\\"y"\n', "line 2: not CSV"),
        ("a.csv", "text,prompt\nx,y\n", "line 1: has text and prompt, and one of them is asked"),
        ("a.csv", "text,text\nx,y\n", "line 1: two columns are named 'text'"),
        ("a.csv", "text,id,id\nx,y,z\n", "line 1: two columns are named 'id'"),
        ("a.csv", "text,\nexplain this, then that\n", "line 2: has 2 cells, and the header 1"),
        ("a.csv", "text,\nhello,,\n", "line 2: has 3 cells, and the header 1"),
        ("a.csv", "id,,text\n1,,x\n", "line 1: column 2 has no name"),
        ("a.csv", ",text\nexplain this, then that\n", "line 2: its first cell has no column"),
        ("a.csv", "id|text\n1|x\n", "no column is named .* it has .'id.text'.*commas, semicolons or tabs"),
        ("a.csv", "id;text\n1,x\n", "line 2: has 1 cells, and the header 2"),
        ("a.csv", "id,text\n1;x\n", "line 2: has 1 cells, and the header 2"),
        ("a.csv", 'id,text\n1,x\n2,""\n', "prompt 2 is empty"),
        ("a.csv", "\n\ntext,id\n\n\nx,1\n\n\ny\n\n", "line 9: has 1 cells, and the header 2"),
        ("a.csv", "\n" * 50_000_000, "no column is named"),
        ("a.txt", "x" * 2_000_000, "a.txt: a prompt has 2000000 characters"),
        ("a.jsonl", '{"text": "' + "x" * 5_000_000 + '"}', "a.jsonl, line 1: has 5000012 characters"),
        ("a.csv", "text" + "," * 2_000_000, "line 1: not CSV .*more than 1000 cells"),
        ("a.csv", f'text,{"y" * 200_000}\n', "line 1: not CSV"),
        ("a.yaml", "seeds: [", "a.yaml: not YAML"),
        ("a.yaml", "prompts: []", 'a.yaml: no list "seeds"'),
        ("a.yaml", "- just a list", 'a.yaml: no list "seeds"'),
        ("a.yaml", "seeds:\n- text: x\n", 'a.yaml: a seed has no text "value"'),
        ("a.yaml", "seeds:\n- value: 3\n", 'a.yaml: a seed has no text "value"'),
        ("a.yaml", "seeds:\n- value: x\n- value: yes\n", 'a.yaml: a seed has no text "value" .line 3'),
        ("a.yaml", "seeds:\n- value: 2024-02-30\n", 'a.yaml: a seed has no text "value"'),
        ("a.yaml", "seeds:\n- value: 1:59:59e9\n- value:\n", 'a.yaml: a seed has no text "value" .line 3'),
        ("a.yaml", f"seeds:\n- value: {'9' * 9_999}\n", 'a.yaml: a seed has no text "value"'),
        ("a.yaml", "seeds:\n- value: !!python/name:os.system ''\n", 'a.yaml: a seed has no text "value"'),
        ("a.yaml", "seeds:\n- value: x\n- value: a.png\n  data_type: image_path\n", "seed 2 is no text .line 3"),
        ("a.yaml", "data_type: audio_path\nseeds:\n- value: a.wav\n", "seed 1 is no text .line 3, .*'audio_path'"),
        ("a.yaml", "seeds:\n- {value: x, data_type: [text]}\n", "seed 1 is no text .line 2"),
        ("a.yaml", "a: &a {value: x}\nseeds:\n- *a\n", r"a.yaml: not YAML .line 3: an alias, \*a"),
        ("a.yaml", "seeds: &a\n- *a\n", "a.yaml: not YAML .line 2: an alias"),
        ("a.yaml", "a: &a {value: x}\nseeds:\n- <<: *a\n", "a.yaml: not YAML .line 3: an alias"),
        ("a.yaml", "seeds:\n- value: x\n  value: y\n", "a.yaml: not YAML .line 3: a key that"),
        ("a.yaml", "seeds: []\nseeds:\n- value: y\n", "a.yaml: not YAML .line 2: a key that"),
        ("a.yaml", "? [a]\n: b\nseeds:\n- value: y\n", "a.yaml: not YAML .line 1: a key that"),
        ("a.yaml", "seeds: " + "[" * 90_000, "a.yaml: not YAML .line 1: nested too deep"),
        ("a.yaml", "seeds:\n" + "- " * 90_000, "a.yaml: not YAML .line 2: nested too deep"),
        ("a.yaml", "seeds:\n- value: x\n---\nseeds: []\n", 'a.yaml: no list "seeds"'),
        ("a.yaml", "", 'a.yaml: no list "seeds"'),
        ("a.yaml", "#" * 3_000_000, "a.yaml: is more YAML than 2 MiB"),
        ("a.yaml", "seeds: []", "a.yaml: holds no prompts"),
        ("a.txt", "one\n\ntwo\n", "a.txt: prompt 2 is empty"),
        ("a.txt", "one\n \n", "a.txt: prompt 2 is empty"),
        ("a.txt", "one\ntwo\nOne \n", "a.txt: prompt 3 repeats prompt 1 .'One ' and 'one'"),
        ("a.txt", "one\n\u200b\n", "a.txt: prompt 2 is empty"),
        ("a.jsonl", '{"id": 1, "text": "x"}\n{"id": "1", "text": "y"}\n', "prompts 1 and 2 share the id '1'"),
        ("a.jsonl", '{"id": "1", "text": "x"}\n{"id": " 1 ", "text": "y"}\n', "prompts 1 and 2 share the id '1'"),
        ("a.jsonl", '{"text": "x", "id": [1]}', 'line 1: "id" must be a string or a number'),
        ("a.jsonl", '{"text": "x", "id": NaN}', 'line 1: "id" must be a string or a number'),
        ("a.jsonl", '{"text": "x", "id": -Infinity}', 'line 1: "id" must be a string or a number'),
        ("a.jsonl", '{"text": "x", "category": NaN}', 'line 1: "category" holds a number that is not finite'),
        ("a.jsonl", '{"text": "x", "category": [{"a": Infinity}]}', 'line 1: "category" holds a number that is not'),
        ("a.jsonl", '{"text": NaN}', 'line 1: expected an object with a string "text"'),
        ("a.jsonl", '{"text": "x", "answer": NaN}', 'line 1: "answer" must be a string'),
        ("a.jsonl", '{"text": "x", "text": "y"}', "line 1: not JSON .the key 'text' stands there twice"),
        ("a.jsonl", '{"text": "x"}\n' + "[" * 99_999, "line 2: not JSON .recursion limit"),
        ("a.jsonl", '{"text": "x", "id": ' + "9" * 9_999 + "}", "line 1: not JSON .number out of range"),
        ("a.jsonl", '{"text": "x", "score": nan}', "line 1: not JSON"),
        ("a.jsonl", '{"text": "x", "score": 1e999}', "line 1: not JSON"),
        ("a.parquet", "x", r"format '.parquet' is not known; use .jsonl, .csv, .txt or .yaml"),
        ("a", "x", "format '' is not known"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_file_and_place(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_prompts(tmp_path / name)


def test_a_missing_file_says_where_its_name_comes_from(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.txt: no such prompt file\. Check the path"):
        read_prompts(tmp_path / "gone.txt")


def test_another_encoding_is_named_with_its_byte(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match=r"a\.txt: not UTF-8 \(byte 3\)"):
        read_prompts(tmp_path / "a.txt")


def test_a_folder_is_no_prompt_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_prompts(tmp_path)


def test_a_file_is_parsed_once_unless_it_changes(tmp_path: Path) -> None:
    """Read a file again, read it after a change that neither its size nor its time tells, and change its only-list."""
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    first = read_prompts(tmp_path / "a.txt")
    assert read_prompts(tmp_path / "a.txt") is first
    about = (tmp_path / "a.txt").stat()
    (tmp_path / "a.txt").write_text("two\nsix\n")
    os.utime(tmp_path / "a.txt", ns=(about.st_atime_ns, about.st_mtime_ns))
    assert read_prompts(tmp_path / "a.txt").texts == ["two", "six"]
    for text in ("two", "six"):
        assert read_prompts(tmp_path / "a.txt", only=listing(tmp_path, text)).texts == [text]


# --- Only-lists ------------------------------------------------------------------------------------------------------


def listing(tmp_path: Path, *texts: str) -> Path:
    """Write a file of the digests of *texts*."""
    file = tmp_path / "only.sha256"
    file.write_text("".join(sha256_text(text) + "\n" for text in texts))
    return file


def test_an_only_list_keeps_its_prompts_in_the_files_order(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    assert read_prompts(tmp_path / "a.txt", only=listing(tmp_path, "three", "one")).texts == ["one", "three"]


def test_an_only_list_must_be_found_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    with pytest.raises(DataError, match=r"holds 1 of the 2 prompts that .*only\.sha256 lists"):
        read_prompts(tmp_path / "a.txt", only=listing(tmp_path, "one", "ONE"))


@pytest.mark.parametrize("line", ["x", "0" * 63, "g" * 64, f"{'0' * 64} *a.txt"])
def test_an_only_list_holds_digests_alone(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "only").write_text(f"{sha256_text('one').upper()}\n\n{line}\n")
    with pytest.raises(DataError, match="only, line 3: not a sha256 digest"):
        read_prompts(tmp_path / "a.txt", only=tmp_path / "only")


def test_a_missing_only_list_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    with pytest.raises(DataError, match=r"gone\.sha256: no such"):
        read_prompts(tmp_path / "a.txt", only=tmp_path / "gone.sha256")


# --- Both sides of a split -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "twin", ["how do bees fly ?", " How do BEES fly ? ", "how do bees fly", "How\u00a0do bees  fly!"]
)
def test_a_prompt_on_both_sides_is_refused(twin: str) -> None:
    with pytest.raises(DataError, match=r"share 1 prompts, so the report would not be held out.*how do bees fly"):
        check_disjoint(texts(*TWO), texts("what is a bee ?", twin))


def test_both_spellings_of_a_shared_prompt_are_shown() -> None:
    with pytest.raises(DataError, match=r"the first is 'how do bees fly' and 'How do bees fly\?'"):
        check_disjoint(texts("how do bees fly"), texts("How do bees fly?"))


def test_different_sides_are_accepted() -> None:
    check_disjoint(texts(*TWO), texts("what is a bee ?"))


def test_near_duplicates_leave_the_search_side() -> None:
    """Share 4 of 5 words between the first two (Jaccard 0.8), and none with the last."""
    search, held_out = texts("how do bees fly fast", "name a river"), texts("How do bees fly ?")
    assert without_near_duplicates(search, held_out, 0.7).texts == ["name a river"]
    assert without_near_duplicates(search, held_out, 0.8).texts == search.texts


def test_word_order_and_punctuation_do_not_hide_a_near_duplicate() -> None:
    search = texts("fly, bees! how do?", "name a river")
    assert without_near_duplicates(search, texts("how do bees fly"), 0.9).texts == ["name a river"]


@pytest.mark.parametrize(
    ("one", "near", "other"),
    [
        ("как летают пчёлы летом", "Как летают пчёлы?", "назови реку"),
        ("où dorment les élèves fatigués ici", "où dorment les élèves fatigués", "nomme une rivière"),
        ("蜜蜂如何飞行呢", "蜜蜂如何飞行", "说出一条河流的名字"),
        ("ผึ้งบินอย่างไรคะ", "ผึ้งบินอย่างไร", "บอกชื่อแม่น้ำ"),
    ],
)
def test_near_duplicates_are_seen_in_any_script(one: str, near: str, other: str) -> None:
    assert without_near_duplicates(texts(one, other), texts(near), 0.7).texts == [other]


def test_what_has_no_words_is_near_to_nothing() -> None:
    assert without_near_duplicates(texts("?!", "name a river"), texts("..."), 0.5).texts == ["?!", "name a river"]


def test_the_same_text_is_dropped_whatever_the_threshold() -> None:
    search = texts("how do bees fly", "name a river")
    assert without_near_duplicates(search, texts(" How do bees fly"), 1.0).texts == ["name a river"]
    assert without_near_duplicates(search, texts("“how  do bees fly”?"), 1.0).texts == ["name a river"]


def test_a_search_side_of_near_duplicates_alone_is_an_error() -> None:
    with pytest.raises(DataError, match=r"every prompt of set is a near-duplicate .* near_duplicates"):
        without_near_duplicates(texts("how do bees fly"), texts("how do bees fly ?"), 0.5)


# --- Hashes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        [Prompt("1", "a", "x"), Prompt("2", "B")],
        [Prompt("1", "a", "y"), Prompt("2", "b")],
        [Prompt("9", "a", "x"), Prompt("2", "b")],
        [Prompt("2", "b"), Prompt("1", "a", "x")],
        [Prompt("1", "a", "x")],
    ],
)
def test_the_hash_tells_text_answer_id_order_and_number(other: list[Prompt]) -> None:
    assert prompt_set("s", other).sha256 != prompt_set("s", [Prompt("1", "a", "x"), Prompt("2", "b")]).sha256


def test_the_hash_ignores_the_name_and_the_format(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.csv").write_text("text\none\ntwo\n")
    assert read_prompts(tmp_path / "a.txt").sha256 == read_prompts(tmp_path / "b.csv").sha256


def test_the_first_few_hash_as_a_set_of_their_own() -> None:
    assert texts(*TWO).first(1) == texts(TWO[0])
    assert texts(*TWO).first(None) == texts(*TWO)
