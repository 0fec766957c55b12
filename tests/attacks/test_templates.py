"""A user's template has one slot, and the question stands in it as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from safety_harness.attacks.attack import Attack, Misfit
from safety_harness.attacks.templates import VERSION, file_attack
from safety_harness.conversation import Conversation, Turn
from safety_harness.errors import ConfigError, DataError


def template(folder: Path, text: str) -> Path:
    file = folder / "mine.txt"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_template_of_a_file_asks_the_question_in_its_slot(tmp_path: Path) -> None:
    attack = file_attack("mine", template(tmp_path, "A {name} asks: {question}\nGo {on}.\n"))
    asked = attack.sees("What is {question} and {name}?")
    assert isinstance(asked, Conversation)
    assert asked.turns == (Turn("user", "A {name} asks: What is {question} and {name}?\nGo {on}."),)
    assert (attack.kind, attack.source) == ("template", "mine.txt")


@pytest.mark.parametrize(
    ("text", "held"), [("", "no slot"), ("Answer me.", "no slot"), ("{question} {question}", "2 slots")]
)
def test_a_template_without_one_slot_is_refused(tmp_path: Path, text: str, held: str) -> None:
    with pytest.raises(DataError, match=rf"mine.txt: .*'mine' has {held} .*Write it once where the question belongs"):
        file_attack("mine", template(tmp_path, text))


def test_a_template_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent.txt: this template cannot be read \(it does not exist\). Check"):
        file_attack("mine", tmp_path / "absent.txt")
    (tmp_path / "latin.txt").write_bytes(b"\xff {question}")
    with pytest.raises(DataError, match=r"latin.txt"):
        file_attack("mine", tmp_path / "latin.txt")


def test_the_fingerprint_is_of_the_text_and_not_of_the_file(tmp_path: Path) -> None:
    first = file_attack("mine", template(tmp_path, "Say {question}"))
    assert file_attack("mine", template(tmp_path, "Say {question}\r\n")).fingerprint == first.fingerprint
    assert file_attack("mine", template(tmp_path, "Tell {question}")).fingerprint != first.fingerprint
    assert first.content.startswith(f"{VERSION} ")


def attack_of(returned: object) -> Attack:
    def transform(_question: str, _seed: int) -> Conversation | Misfit:
        if isinstance(returned, Exception):
            raise returned
        return returned  # type: ignore[return-value]

    return Attack("theirs", "other", "-", transform, "1")


def test_a_transformation_that_fails_names_its_attack() -> None:
    with pytest.raises(ConfigError, match=r"Attack 'theirs': KeyError \('x'\) for the question 'Why\?'. Mend"):
        attack_of(KeyError("x")).sees("Why?")
    with pytest.raises(ConfigError, match="'theirs': its transformation returns str, and must return a Conversation"):
        attack_of("Why?").sees("Why?")
    with pytest.raises(DataError, match="of the harness"):
        attack_of(DataError("an error of the harness")).sees("Why?")
    assert attack_of(Misfit("no")).sees("Why?") == Misfit("no")
