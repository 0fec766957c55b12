"""Check what the gate reads of a student that a server answers for, and what of an unfinished run is kept."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from safety_harness.errors import ConfigError, SourceError
from safety_harness.evaluation.asking import SAMPLE, all_asked
from safety_harness.evaluation.served import announced, open_served
from safety_harness.evaluation.subject import Subject
from safety_harness.gate.records import Identity
from safety_harness.gate.results import Outcome
from safety_harness.registry.load import Student
from safety_harness.registry.splits import load_questions
from tests.evaluation.serving import Serve, remarks, served_student, well
from tests.fake_server import ANSWER, REFUSAL, Sent, Server, completion, sent

Make = Callable[..., Student]


@pytest.fixture
def student(tmp_path: Path) -> Make:
    """Return a student that *server* answers for; *options* go into its table."""

    def make(server: Server, questions: int = 20, further: int = 0, **options: Any) -> Student:
        rows = [{"text": f"harmful and more {at}?"} for at in range(further)]
        return served_student(tmp_path, server, questions, rows, **options)

    return make


def test_checks_of_a_served_student(serve: Serve, student: Make) -> None:
    one = Subject(open_served(student(serve(well), further=3)))
    defense, over = one.defense(one), one.over_refusal(one)
    assert (defense.outcome, defense.numbers["after"], defense.numbers["n"]) == (Outcome.PASS, 20, 20)
    assert (over.outcome, over.numbers["after"], over.summary) == (
        Outcome.PASS, 0, "over-refusal 0 of 20 as it is, compared with nothing",
    )  # fmt: skip
    assert defense.asked
    assert (defense.asked.after, defense.asked.answers_after[0]) == ("R" * 20, REFUSAL)
    (more,) = one.further(one).values()
    assert (more["after"]["refused"], more["after"]["n"]) == (3, 3)
    assert one.task(one).passed
    for measure in (lambda: one.perplexity(one), one.divergence, lambda: one.weighed):
        with pytest.raises(ConfigError, match="a/one: is served"):
            measure()


def test_its_identity_names_the_server(serve: Serve, student: Make) -> None:
    server = serve(well)
    identity = Identity.model_validate(open_served(student(server, seed=7)).identity())
    assert identity.served
    assert identity.served.model_dump() == {
        "host": server.url.removeprefix("http://"), "model": "tiny", "says": {"id": "tiny", "owned_by": "us"},
        "sampling": {"temperature": 0, "max_tokens": 16, "seed": 7}, "answered_as": ["tiny-1"],
        "fingerprints": ["fp_1"],
    }  # fmt: skip
    assert identity.names("served")
    assert not identity.names("as it is")


def test_what_is_sent_is_what_was_announced(serve: Serve, student: Make) -> None:
    server = serve(well)
    one = student(server, further=3, retries=2)
    assert announced(one).startswith(f"a/one: served by {server.url[7:]}/tiny: 52 requests, 154 at most where ")
    assert announced(one).endswith("may generate 2,448 tokens")
    evaluator = open_served(one)
    assert len(server.paths) == evaluator.client.sent == 1 + 43 + 2 * SAMPLE == 52
    assert sorted(set(server.questions)) == sorted(str(each.asked) for each in all_asked(one, load_questions(one)))


def test_more_than_announced_is_remarked(serve: Serve, student: Make) -> None:
    server = serve(well)
    evaluator = open_served(student(server))
    with pytest.warns(UserWarning, match="a/one: 3 questions more than announced are asked"):
        evaluator.answers((), evaluator.questions.harmful.search)
    assert evaluator.client.sent == len(server.paths)


# --- Answers that are none -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd",
    [
        completion(REFUSAL, "content_filter"),
        completion(None),
        completion(" "),
        completion(None, tool_calls=[{"id": "1"}]),
        completion(None, "length", reasoning_content="I cannot help with that."),
        completion("<think>I cannot help with that."),
        sent({"error": {"code": "content_filter"}}, 400),
    ],
)
def test_what_is_no_answer_is_no_refusal(serve: Serve, student: Make, odd: Sent) -> None:
    """Expect nothing to be proven, whatever stands in place of two answers of twenty."""
    few = ("harmful question 3?", "harmful question 9?")
    one = Subject(open_served(student(serve(lambda question, _: odd if question in few else well(question)))))
    defense = one.defense(one)
    assert defense.asked
    assert defense.asked.after.count("U") == 2
    assert not defense.passed
    one.evaluator.close()


def test_a_refusal_in_its_own_field_is_judged(serve: Serve, student: Make) -> None:
    refusing = lambda question, _: completion(None, refusal=REFUSAL) if "harmful" in question else well(question)  # noqa: E731
    one = Subject(open_served(student(serve(refusing))))
    assert one.defense(one).numbers["after"] == 20


def test_a_thought_is_no_answer(serve: Serve, student: Make) -> None:
    """Think of refusing, and answer."""
    said = completion(ANSWER, reasoning_content=REFUSAL)
    one = Subject(open_served(student(serve(lambda *_: said))))
    assert one.defense(one).numbers["after"] == 0


# --- What changes ----------------------------------------------------------------------------------------------------


def test_a_server_that_answers_alike_gets_no_remark(serve: Serve, student: Make) -> None:
    assert remarks(student(serve(well))) == []


def test_answers_that_differ_are_remarked(serve: Serve, student: Make) -> None:
    def moody(question: str, before: int) -> Sent:
        return well(question) if before < 1 else completion(f"Sure, {before}.")

    (said,) = remarks(student(serve(moody)))
    assert said.startswith("a/one: of 4 questions that were asked three times, 4 had different answers and 2 different")


@pytest.mark.parametrize("says", [("tiny-1", "tiny-2"), ("", "")])
def test_a_model_that_changes_meanwhile_is_not_gated(serve: Serve, student: Make, says: tuple[str, str]) -> None:
    """Answer all harmful questions by a model that refuses, then all others by one that never does."""

    def changes(question: str, _: int) -> Sent:
        late = len(set(server.questions)) > 30
        return of_model(completion(ANSWER) if late else well(question), says[late])

    server = serve(changes)
    one = student(server, concurrency=1)
    with pytest.raises(SourceError, match="had more than one model while it was asked"):
        open_served(one)
    server.requests.clear()
    server.reaction = well
    open_served(one).close()
    assert len(set(server.questions)) == 40


def test_a_model_that_changes_after_that_is_not_asked_on(serve: Serve, student: Make) -> None:
    server = serve(well)
    one = Subject(open_served(student(server)))
    server.reaction = lambda *_: of_model(completion(ANSWER), "tiny-2")
    with (
        pytest.warns(UserWarning, match="more than announced"),
        pytest.raises(SourceError, match="its answers say tiny-1 and tiny-2"),
    ):
        one.ask(["Who are you?"])


def of_model(response: Sent, name: str) -> Sent:
    """Return a *response* in which the model calls itself *name*."""
    table = json.loads(response.pieces[0])
    return sent({**table, "model": name, "system_fingerprint": ""})


def test_another_fingerprint_is_remarked(serve: Serve, student: Make) -> None:
    odd = "harmless question 7?"
    one = student(serve(lambda question, _: completion(ANSWER, system="fp_2" if question == odd else "fp_1")))
    (said,) = remarks(one)
    assert "a/one: its answers come from several systems" in said


# --- What is kept ----------------------------------------------------------------------------------------------------


def test_an_unfinished_run_is_taken_up_again(serve: Serve, student: Make) -> None:
    """Let the server break down half-way: the next run asks for the rest, and a run after that for all."""
    broken = [True]

    def fails(question: str, before: int) -> Sent:
        return sent({}, 500) if broken[0] and question == "harmless question 9?" else well(question, before)

    server = serve(fails)
    one = student(server, concurrency=1)
    with pytest.raises(SourceError, match=r"'harmless question 9\?' in 2 attempts"):
        open_served(one)
    answered = set(server.questions) - {"harmless question 9?"}
    assert len(answered) > 25
    broken[0] = False
    server.requests.clear()
    first = open_served(one)
    asked_again = [question for question in server.questions if question in answered]
    assert len(asked_again) == len(first._replies and set(asked_again)) * 3 == 3 * SAMPLE
    assert len(set(server.questions)) == 40 - len(answered) + SAMPLE
    first.close()
    server.requests.clear()
    open_served(one).close()
    assert len(server.questions) == 40 + 2 * SAMPLE


def test_answers_of_another_system_are_not_taken_up(serve: Serve, student: Make) -> None:
    system = ["fp_1"]
    server = serve(lambda *_: completion(ANSWER, system=system[0]))
    one = student(server)
    open_served(one)  # is not closed
    system[0] = "fp_2"
    server.requests.clear()
    open_served(one)
    assert len(set(server.questions)) == 40


def test_answers_of_a_model_of_the_same_name_are_not_taken_up(serve: Serve, student: Make) -> None:
    """Deploy another model under the name of the one that answered half: once, and again after another break."""
    safe, broken = [True], [True]

    def redeployed(question: str, before: int) -> Sent:
        if broken[0] and question == "harmless question 9?":
            return sent({}, 500)
        return well(question, before) if safe[0] else completion("Sure.")

    server = serve(redeployed)
    one = student(server, concurrency=1)
    for safe[0] in (True, False):
        with pytest.raises(SourceError, match="harmless question 9"):
            open_served(one)
    broken[0] = False
    unsafe = Subject(open_served(one))
    assert unsafe.defense(unsafe).numbers["after"] == 0


DAMAGE: Mapping[str, Callable[[str], str]] = {
    "emptied": lambda _: "",
    "cut": lambda text: text[:-30],
    "led in by another byte": lambda text: f"\0{text}",
    "of 1970": lambda text: text.replace('"when": 1', '"when": 0'),
    "of the future": lambda text: text.replace('"when": 1', '"when": 9'),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_journal_costs_its_lines_alone(serve: Serve, student: Make, damage: Callable[[str], str]) -> None:
    server = serve(well)
    one = student(server)
    file = open_served(one)._journal.file
    assert file.stat().st_mode & 0o077 == 0
    file.write_text(damage(file.read_text()))
    again = open_served(one)
    assert len(again._replies) == 40
    again.close()
    assert not file.exists()


def test_yesterdays_answers_are_asked_for_again(serve: Serve, student: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(well)
    one = student(server)
    open_served(one)
    server.requests.clear()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 25 * 3600)
    open_served(one)
    assert len(set(server.questions)) == 40


def test_a_served_student_needs_no_torch() -> None:
    """Import in a new process what asks and scores it."""
    modules = ("evaluation.served", "evaluation.subject", "plugin.fixtures")
    code = f"import sys, {', '.join(f'safety_harness.{name}' for name in modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
