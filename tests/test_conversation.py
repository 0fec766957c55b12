"""What is sent is hashed, and what cannot be sent is refused."""

from __future__ import annotations

import pytest

from safety_harness.conversation import Conversation, Decoding, Turn, asked_text
from safety_harness.errors import DataError

ASK = Turn("user", "How do I bake a loaf of bread?")
SAID = Turn("assistant", "Which flour do you have?")
RULES = Turn("system", "Be brief.")

BROKEN = [
    ((), "does not end with a user's turn"),
    ((RULES,), "does not end with a user's turn"),
    ((ASK, SAID), "does not end with a user's turn"),
    ((SAID, ASK), "do not alternate"),
    ((ASK, ASK), "do not alternate"),
    ((RULES, SAID, ASK), "do not alternate"),
    ((ASK, RULES, ASK), "has a system turn that is not its first"),
    ((RULES, RULES, ASK), "has a system turn that is not its first"),
    ((Turn("user", " \n"),), "has a blank user turn"),
    ((Turn("system", ""), ASK), "has a blank system turn"),
    ((Turn("tool", "x"), ASK), "roles are system, user, assistant"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("turns", "why"), BROKEN)
def test_turns_that_cannot_be_sent_are_refused(turns: tuple[Turn, ...], why: str) -> None:
    with pytest.raises(DataError, match=rf"^The attack 'mine' .*{why}.*Correct its template"):
        Conversation(turns, attack="mine")


@pytest.mark.parametrize("turns", [(ASK,), (RULES, ASK), (ASK, SAID, ASK), (RULES, ASK, SAID, ASK)])
def test_turns_in_order_are_sent(turns: tuple[Turn, ...]) -> None:
    sent = Conversation(turns)
    assert [(one["role"], one["content"]) for one in sent.messages] == list(sent.pairs)
    assert [role for role, _ in sent.pairs] == [turn.role for turn in turns]
    assert asked_text(sent) == ASK.text == asked_text(ASK.text)


@pytest.mark.parametrize("prefill", [" Sure", "Sure ", "Sure\n"])
def test_a_prefill_with_white_space_at_its_ends_is_refused(prefill: str) -> None:
    with pytest.raises(DataError, match="A conversation has a prefill with white space at its ends"):
        Conversation((ASK,), prefill)


def test_the_digest_covers_all_that_is_sent_and_nothing_else() -> None:
    sent = [
        Conversation((ASK,)),
        Conversation((ASK,), "Sure"),
        Conversation((RULES, ASK)),
        Conversation((Turn("user", RULES.text), SAID, ASK)),
        Conversation((ASK, SAID, ASK)),
        Conversation((Turn("user", ASK.text + " "),)),
    ]
    assert len({one.sha256 for one in sent}) == len(sent)
    named = Conversation((ASK,), attack="mine")
    assert named == sent[0]
    assert hash(named) == hash(sent[0])
    assert named.sha256 == sent[0].sha256 == "997659de6941a860874796ee036aa547e8359994c74219d442248bc25a3d16f3"


def test_a_plain_question_is_known_as_one() -> None:
    assert Conversation.of(ASK.text) == Conversation((ASK,))
    assert Conversation.of(ASK.text).plain == ASK.text
    for other in (Conversation((ASK,), "Sure"), Conversation((RULES, ASK)), Conversation((ASK, SAID, ASK))):
        assert other.plain is None


def test_a_system_turn_is_folded_into_the_first_turn_of_the_user() -> None:
    folded = Conversation((RULES, ASK, SAID, ASK), "Sure", "mine").without_system()
    assert folded == Conversation((Turn("user", f"{RULES.text}\n\n{ASK.text}"), SAID, ASK), "Sure")
    assert folded.attack == "mine"
    assert Conversation((ASK,)).without_system() == Conversation((ASK,))


@pytest.mark.parametrize(
    ("temperature", "draw", "why"),
    [
        (-0.1, 0, "a temperature of -0.1 is none"),
        (float("nan"), 0, "a temperature of nan is none"),
        (float("inf"), 0, "a temperature of inf is none"),
        (0.7, -1, "a draw of -1 is none"),
    ],
)
def test_a_way_of_decoding_that_is_none_is_refused(temperature: float, draw: int, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}"):
        Decoding(9, temperature, draw)


def test_a_greedy_answer_has_one_way() -> None:
    assert Decoding(9).other_than(9) is None
    assert Decoding(9, draw=3).other_than(9) is None
    assert Decoding(9, draw=3).other_than(8) == Decoding(9)
    assert Decoding(9, 0.7).other_than(9) == Decoding(9, 0.7)
    assert Decoding(9, 0.7, 3).other_than(9) == Decoding(9, 0.7, 3)


def test_each_draw_of_each_question_has_its_seed() -> None:
    asked = [ASK.text, "?", Conversation((RULES, ASK)), Conversation((ASK,), "Sure")]
    assert len({Decoding(9, 0.7, draw).seed(one) for draw in range(9) for one in asked}) == 36
    assert Decoding(9, 0.7, 3).seed(Conversation((ASK,))) == Decoding(5, 0.1, 3).seed(ASK.text)
    assert Decoding(9, 0.7).seed("?") == 0xA05E7B6992CDF5CF
