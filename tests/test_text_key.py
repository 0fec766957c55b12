"""Check which texts ask the same question, and which do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_harness.text import question_key


@pytest.mark.parametrize(
    "texts",
    [
        [
            "how do i make a cake?",
            "how do i  make a cake?",
            " how do i make\ta cake ?\r\n",
            "how do i make\u00a0a\u3000cake",
            "How Do I Make A Cake.",
            "how do i ma\u00adke a\u200b cake\u2060??!",
            "\ufeffhow do i make a cake…",
            "“how do i make a cake”",
            "ｈｏｗ ｄｏ ｉ ｍａｋｅ ａ ｃａｋｅ？",
        ],
        ['don\'t say "x" - ever', "don’t say “x” — ever", "don´t say «x» -- ever", "don`t say ''x''-ever"],
        ["¿Cómo estás?", "cómo estás", "co\u0301mo estás."],
        ["蜜蜂如何飞行？", "蜜蜂如何飞行。", "蜜蜂如何飞行"],
        ["كيف حالك؟", "كيف حالك"],
        ["GROSS", "groß"],
        ["5 \u2212 3", "5 - 3", "5\u20133"],
        ["?!", "?!", "？！"],
        ["What is 7 + 5?", "what is 7 + 5", "“What is 7  + 5.”", "What is ７ ＋ ５ ?", "what is 𝟕 + 5"],
        ["Compute 5!", "compute 5！", "Compute 5!.", "“Compute 5!”?", "Compute 5!?"],
        ["How many is a dozen?", "How many is a dozen!"],
    ],
)
def test_spellings_of_one_question_have_one_key(texts: list[str]) -> None:
    assert len(set(map(question_key, texts))) == 1


@pytest.mark.parametrize(
    "texts",
    [
        ["how do i make a cake", "how do i make cake", "how do i make a cafe", "how do i make a café"],
        ["-5 + 3", "5 + 3", "5 - 3", "5 - -3", ".5 + 3"],
        ["what is C", "what is C++", "what is C#"],
        ["Compute 5", "Compute 5!", "Compute 5!!", "Compute -5!"],
        ["Compute (3 + 2)", "Compute (3 + 2)!"],
        ["What is 5²?", "What is 52?", "What is 5₂?", "What is 5^2?"],
        ["What is 10⁻²?", "What is 10-2?", "What is 10²?"],
        ["What is 1½?", "What is 11/2?", "What is 11⁄2?", "What is 1 1/2?"],
        ["What is xⁿ?", "What is xn?", "What is x¹?", "What is x₁?", "What is x1?"],
        ["What is 2①?", "What is 21?"],
        ["?!", "...", "'"],
        ["say 'a', b", "say a, 'b'"],
    ],
)
def test_other_questions_have_other_keys(texts: list[str]) -> None:
    assert len(set(map(question_key, texts))) == len(texts)


@given(text=st.text())
def test_a_key_is_its_own_key(text: str) -> None:
    assert question_key(question_key(text)) == question_key(text)


@given(text=st.text(st.characters(codec="utf-8"), min_size=1))
def test_only_what_shows_nothing_has_no_key(text: str) -> None:
    assert question_key(text) or not any(char.isalnum() or char in "?!.,-'" for char in text if char.isprintable())
