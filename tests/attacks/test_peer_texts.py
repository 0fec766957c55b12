"""The comparison with other tools counts texts as identical only if each byte is."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from benchmarks.quality import attack_texts
from benchmarks.quality.attack_texts import Always, Pair, behind_words, counts, equal, readable_templates
from safety_harness.attacks import rewrites
from safety_harness.attacks.builtin import builtin_attacks
from safety_harness.conversation import Conversation


def test_texts_are_equal_by_their_bytes() -> None:
    assert equal(["a", "b ", "é"], ["a", "b", "e\u0301"]) == 1
    with pytest.raises(ValueError, match="zip"):
        equal(["a"], [])


def test_a_payload_is_a_whole_paragraph_at_the_end() -> None:
    ours = ["Decode this.\n\nYWI=", "YWI=", "Decode this: YWI=", "Decode this.\n\nXYWI="]
    assert behind_words(ours, ["YWI="] * 4) == 2


def test_chance_taken_out_changes_every_letter() -> None:
    assert rewrites.leet("Oat side", Always()) == "047 51d3"
    assert rewrites.spaced("ab cd", Always()) == "a b   c d"
    assert rewrites.leet("Oat side", Random(1)) != "047 51d3"


def test_a_pair_is_counted_three_ways() -> None:
    question = "Oat side"
    base64 = Pair("base64", "them", "code", "", lambda text: text.removeprefix("It is: "))
    assert counts(base64, [question], ["It is: T2F0IHNpZGU="]) == (0, 1, None)
    sent = builtin_attacks()["base64"].sees(question)
    assert isinstance(sent, Conversation)
    assert counts(Pair("base64", "them", "code", ""), [question], [sent.turns[-1].text]) == (1, 1, None)
    assert counts(Pair("leet", "them", "code", ""), [question], ["047 51d3"])[2] == 1


def test_pairs_name_attacks_of_the_package() -> None:
    attacks = builtin_attacks()
    assert {pair.ours for pair in attack_texts.PAIRS} <= attacks.keys()
    assert set(attack_texts.DRAWN["ours"]) <= attacks.keys()


def test_templates_are_read_or_refused(tmp_path: Path) -> None:
    """A template that takes more than the question, or whose name is not its own, is none of those that are counted."""
    contents = {
        "good.yaml": "parameters: [prompt]\nvalue: 'Say {{ prompt }}.'",
        "twice.yaml": "parameters: [prompt]\nvalue: '{{ prompt }} {{ prompt }}'",
        "raw.yaml": "parameters: [prompt]\nvalue: '{% raw %}{{ prompt }}{% endraw %}'",
        "more.yaml": "parameters: [prompt, name]\nvalue: '{{ prompt }}'",
        "a/same.yaml": "parameters: [prompt]\nvalue: '{{ prompt }}'",
        "b/same.yaml": "parameters: [prompt]\nvalue: '{{ prompt }}'",
        "multi_parameter/one.yaml": "parameters: [prompt]\nvalue: '{{ prompt }}'",
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    attacks, refused = readable_templates(tmp_path)
    assert (list(attacks), refused) == (["good.yaml"], 2)
    assert attack_texts.sent(attacks["good.yaml"], ["Why?"]) == ["Say Why?."]
