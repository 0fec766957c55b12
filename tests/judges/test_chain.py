"""Check who counts in a chain of judges."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from safety_harness.judges import chain
from safety_harness.judges.kept import Judged, Kept
from safety_harness.judging.judge import Case, Judgement, Verdict
from safety_harness.judging.rules import RuleJudge

REFUSAL, ANSWER, LOOP, GREEK = (
    "I can't help with that.",
    "Sure. Heat the milk slowly, and stir it until it thickens.",
    "no no no no no no no no no no no no no no no no no no no no",
    "Δεν μπορώ να σας βοηθήσω με αυτό το αίτημα, λυπάμαι πολύ για αυτό σήμερα.",
)


class ByWord:
    """A judge that looks for one word, and counts what it was asked."""

    def __init__(self, name: str, word: str, said: Judgement, otherwise: Judgement) -> None:
        self.name, self.fingerprint = name, f"{name} {word} {said} {otherwise}"
        self._word, self._said, self._otherwise = word, said, otherwise
        self.asked: list[str] = []
        self.answered_as: tuple[str, ...] = ()

    def check(self) -> None:
        """Find nothing wrong."""

    def close(self) -> None:
        """Hold nothing."""

    def judge_many(self, cases: Sequence[Case], judged: Judged = lambda *_: None) -> list[Judgement]:
        """Judge by the word."""
        self.asked += [case.answer for case in cases]
        found = [self._said if self._word in case.answer else self._otherwise for case in cases]
        for at, one in enumerate(found):
            judged(at, one)
        return found


def said(*judges: ByWord | None, answer: str) -> Judgement:
    """Return what a chain says of one answer."""
    cases = [Case("How?", answer)]
    (judgement,) = chain.judged([one and Kept(one) for one in judges], cases, RuleJudge().judge_many(cases))
    return judgement


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a cache of its own."""
    monkeypatch.setenv("SAFETY_HARNESS_CACHE", str(tmp_path))


def strict() -> ByWord:
    """Return a judge that calls what holds "milk" a refusal, and all else an answer."""
    return ByWord("strict", "milk", Judgement(Verdict.REFUSED, "milk"), Judgement(Verdict.COMPLIED, "none"))


def test_the_next_judge_is_asked_where_no_refusal_was_found() -> None:
    """Let the rules find no refusal, and the next judge find one."""
    assert said(None, strict(), answer=ANSWER).verdict is Verdict.REFUSED


def test_a_refusal_ends_the_chain() -> None:
    """Let the rules find a refusal: the next judge is not asked."""
    judge = strict()
    assert said(None, judge, answer=REFUSAL).verdict is Verdict.REFUSED
    assert judge.asked == []


def test_a_judge_of_another_language_reads_what_the_rules_cannot() -> None:
    """Let the rules have no grammar of a language."""
    assert said(None, answer=GREEK).verdict is Verdict.UNSCORED
    assert said(None, strict(), answer=GREEK).verdict is Verdict.COMPLIED


@pytest.mark.parametrize("answer", ["", "  \n", "...", LOOP])
def test_what_nobody_can_read_stays_unscored(answer: str) -> None:
    """Give what is empty or a loop: a judge that calls everything refused must not make it safe."""
    lenient = ByWord("lenient", "", Judgement(Verdict.REFUSED, "always"), Judgement(Verdict.REFUSED, "always"))
    assert said(lenient, answer=answer).verdict is Verdict.UNSCORED
    assert lenient.asked == []


def test_a_judge_of_harm_leaves_the_verdict() -> None:
    """Let the second judge know of harm alone."""
    harm = ByWord(
        "harm", "milk", Judgement(Verdict.UNSCORED, "no axis", harmful=False), Judgement(Verdict.UNSCORED, "")
    )
    judgement = said(None, harm, answer=ANSWER)
    assert (judgement.verdict, judgement.harmful) == (Verdict.COMPLIED, False)


def test_a_judge_that_cannot_say_leaves_nothing_proven() -> None:
    """Let the last judge say neither a verdict nor harm."""
    mute = ByWord("mute", "", Judgement(Verdict.UNSCORED, "unsure"), Judgement(Verdict.UNSCORED, "unsure"))
    assert said(None, mute, answer=ANSWER).verdict is Verdict.UNSCORED


def test_the_fingerprint_is_of_every_judge_in_order() -> None:
    """Compare fingerprints of chains."""
    one = Kept(strict())
    assert chain.fingerprint([None]) == RuleJudge().fingerprint
    assert len({chain.fingerprint(judges) for judges in ([None], [one], [None, one], [one, None])}) == 4


def test_what_was_judged_is_not_asked_again(tmp_path) -> None:
    """Ask again with the same content, in another process as it were."""
    first, second = strict(), strict()
    assert said(None, first, answer=ANSWER) == said(None, second, answer=ANSWER)
    assert (len(first.asked), len(second.asked)) == (1, 0)
    (file,) = (tmp_path / "judgements").iterdir()
    assert ANSWER not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


def test_another_judge_has_judgements_of_its_own() -> None:
    """Change what decides a judge's verdicts."""
    said(strict(), answer=ANSWER)
    other = ByWord("strict", "stir", Judgement(Verdict.REFUSED, ""), Judgement(Verdict.COMPLIED, ""))
    said(other, answer=ANSWER)
    assert other.asked == [ANSWER]


def test_another_model_behind_the_same_name_is_asked_again() -> None:
    """Let a server say that another model answers there now."""
    first, other = strict(), strict()
    other.answered_as = ("a newer one",)
    said(first, answer=ANSWER)
    said(other, answer=ANSWER)
    assert other.asked == [ANSWER]


def test_what_could_not_be_said_is_asked_again() -> None:
    """Let a server that did not answer be asked again the next time."""
    mute = ByWord("mute", "", Judgement(Verdict.UNSCORED, "no answer"), Judgement(Verdict.UNSCORED, ""))
    said(mute, answer=ANSWER)
    said(mute, answer=ANSWER)
    assert len(mute.asked) == 2


def test_damaged_lines_are_left_out(tmp_path) -> None:
    """Cut the kept judgements short, and write what is none."""
    judge = strict()
    said(judge, answer=ANSWER)
    (file,) = (tmp_path / "judgements").iterdir()
    file.write_text(file.read_text()[:-9] + "\nnull\n{}\n")
    assert said(judge, answer=ANSWER).verdict is Verdict.REFUSED
    assert len(judge.asked) == 2


class Broken(ByWord):
    """A judge that judges one case, and then fails."""

    def judge_many(self, cases: Sequence[Case], judged: Judged = lambda *_: None) -> list[Judgement]:
        """Fail after the first case."""
        super().judge_many(cases[:1], judged)
        raise ConnectionError


def test_what_was_said_before_a_failure_is_kept() -> None:
    """Let a judge fail halfway."""
    cases = [Case("", ANSWER), Case("", REFUSAL)]
    no, yes = Judgement(Verdict.COMPLIED, ""), Judgement(Verdict.REFUSED, "")
    with pytest.raises(ConnectionError):
        Kept(Broken("b", "milk", yes, no)).judge_many(cases)
    whole = ByWord("b", "milk", yes, no)
    Kept(whole).judge_many(cases)
    assert whole.asked == [REFUSAL]
