"""Check prompt files of any content: texts survive every format, and hashes and splits keep their promises."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from safety_harness.errors import DataError
from safety_harness.registry.near import near_to
from safety_harness.registry.prompts import Prompt, check_disjoint, prompt_set, read_prompts, without_near_duplicates
from safety_harness.text import question_key

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(question_key)
SETS = st.lists(TEXTS, min_size=1, max_size=6, unique_by=question_key)
WORDS = st.lists(st.sampled_from("abcdefghijklmn"), min_size=1, max_size=12).map(" ".join)
PROMPTS = st.lists(
    st.builds(Prompt, st.sampled_from("abc"), TEXTS, st.none() | TEXTS), max_size=3, unique_by=lambda p: p.id
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prompts")


@given(texts=SETS, ascii_only=st.booleans())
def test_any_texts_survive_jsonl(folder: Path, texts: list[str], ascii_only: bool) -> None:
    lines = [json.dumps({"text": text}, ensure_ascii=ascii_only) + "\n" for text in texts]
    (folder / "a.jsonl").write_text("".join(lines), encoding="utf-8", newline="")
    assert read_prompts(folder / "a.jsonl").texts == texts


@given(texts=SETS)
def test_any_texts_survive_csv_but_for_carriage_returns(folder: Path, texts: list[str]) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([["text"], *([text] for text in texts)])
    (folder / "a.csv").write_text(buffer.getvalue(), encoding="utf-8", newline="")
    expected = [re.sub("\r\n?", "\n", text) for text in texts]
    assume(len({question_key(text) for text in expected}) == len(texts))
    assert read_prompts(folder / "a.csv").texts == expected


@given(name=st.sampled_from(["a.jsonl", "a.csv", "a.txt", "a.yaml"]), content=st.binary(max_size=80))
def test_no_content_ends_in_another_error_than_the_users(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    message = ""
    try:
        read_prompts(folder / name)
    except DataError as error:
        message = str(error)
    assert not message or name in message


@given(one=PROMPTS, other=PROMPTS)
def test_hashes_are_equal_exactly_when_prompts_are(one: list[Prompt], other: list[Prompt]) -> None:
    assert (prompt_set("x", one).sha256 == prompt_set("y", other).sha256) == (one == other)


@given(search=st.lists(WORDS, min_size=1), report=st.lists(WORDS, min_size=1), threshold=st.floats(0, 1))
def test_no_near_duplicate_is_left_and_nothing_else_is_lost(
    search: list[str], report: list[str], threshold: float
) -> None:
    def near(one: str, other: str) -> bool:
        first, second = set(one.split()), set(other.split())
        return len(first & second) / len(first | second) > threshold

    sets = [prompt_set("s", [Prompt(str(i), text) for i, text in enumerate(texts)]) for texts in (search, report)]
    expected = [text for text in search if not any(text == other or near(text, other) for other in report)]
    assert near_to(search, report, threshold) == [any(near(text, other) for other in report) for text in search]
    try:
        assert without_near_duplicates(sets[0], sets[1], threshold).texts == expected
    except DataError:
        assert expected == []


@given(search=SETS, report=SETS)
def test_sides_are_disjoint_or_refused(search: list[str], report: list[str]) -> None:
    sides = [prompt_set("s", [Prompt(str(i), text) for i, text in enumerate(texts)]) for texts in (search, report)]
    shared = {question_key(text) for text in search} & {question_key(text) for text in report}
    if shared:
        with pytest.raises(DataError, match=f"share {len(shared)} prompts"):
            check_disjoint(*sides)
    else:
        check_disjoint(*sides)


@given(
    words=st.lists(WORDS, min_size=1), at=st.integers(0, 20), threshold=st.sampled_from([0.0, 0.5, 0.6, 0.7, 0.8, 1.0])
)
def test_near_is_the_same_however_many_are_compared_at_once(words: list[str], at: int, threshold: float) -> None:
    """Compare in blocks of three, at thresholds that word counts meet exactly."""
    with pytest.MonkeyPatch.context() as patch:
        whole = near_to(words[:at], words[at:], threshold)
        patch.setattr("safety_harness.registry.near._BLOCK", 3)
        assert near_to(words[:at], words[at:], threshold) == whole
