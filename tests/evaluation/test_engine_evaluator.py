"""Check whose answers are used where an engine answers: never the own loop's, and none after a failure."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from safety_harness.conversation import Asking
from safety_harness.errors import SourceError
from safety_harness.evaluation import engine
from safety_harness.evaluation.engine import SAMPLE, EngineEvaluator
from safety_harness.evaluation.memo import Answered
from safety_harness.judging.rules import RuleJudge
from safety_harness.registry.backend import Backend
from safety_harness.registry.load import load_registry
from safety_harness.registry.server import Served
from safety_harness.registry.splits import load_questions
from safety_harness.served.engine import Engine
from safety_harness.served.reply import Reply
from tests.fake_server import ANSWER, REFUSAL
from tests.samples import TABLE, write_prompts, write_registry

END = 0
Said = Callable[[str], str]


def tokens(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


class Own:
    """The harness's own loop, without a model: it says *said*, and counts what it is asked."""

    def __init__(self, folder: Path, said: Said, max_new_tokens: int = 64) -> None:
        table = f'[families.a]\nmax_new_tokens = {max_new_tokens}\n[families.a.students.one]\npath = "m"\n'
        file = write_registry(folder, table, table=TABLE)
        for kind in ("harmful", "harmless"):
            write_prompts(folder / f"{kind}.report.jsonl", [f"{kind} question {at}?" for at in range(40)])
        (self.student,) = load_registry(file).select()
        self.questions = load_questions(self.student)
        self.units, self.lineage = ("all",), None
        self.checkpoint = SimpleNamespace(folder=folder)
        chat = SimpleNamespace(
            text=lambda told, _prompt, begun: (begun + "".join(map(chr, told))).strip(), begun=lambda _: ""
        )
        self.generator = SimpleNamespace(
            stop_tokens={END},
            encode=lambda text: list(tokens(text)),
            forget=lambda: None,
            chat=chat,
            check_lengths=lambda *_: None,
        )
        self.said, self.answered = said, 0

    def beginnings(self, _units: Sequence[Any], texts: Sequence[str], most: int) -> list[list[int]]:
        return [list(tokens(self.said(text)))[:most] for text in texts]

    def judged(self, identifier: str, answer: str) -> Answered:
        return Answered(identifier, answer, RuleJudge().judge(answer))

    def shown(self, answer: str) -> str:
        return answer

    def identity(self) -> dict[str, Any]:
        return {"student": "s", "dtype": "float32"}

    def answers(self, *_: Any) -> None:
        raise AssertionError("the own loop answers no question of an engine's")


def well(question: str) -> str:
    return f"{REFUSAL if question.startswith('harmful') else ANSWER} ({question})"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Let engines say ``SAID[0]``; return what each engine that was started is asked."""
    asked: list[list[str]] = []

    @contextlib.contextmanager
    def running(_backend: Backend, _model: Path, _dtype: str, log: Path) -> Iterator[Engine]:
        asked.append([])
        yield Engine(Served(url="http://localhost:1/v1", model="m"), VERSIONS[0], log)

    class Client:
        def __init__(self, _server: Served, most: int, limit: int, request: Any, begun: Any, direct: bool) -> None:
            self.most, self.limit, self.request = most, limit, request
            assert (direct, begun(Asking("?"))) == (True, "")

        def ask(self, askings: Sequence[Asking], answered: Callable[[Asking, Reply], None]) -> None:
            for one in askings:
                question = str(one.asked)
                asked[-1].append(question)
                assert len(asked[-1]) <= self.limit
                path, body = self.request(one)
                assert (path, tuple(body["prompt"]), body["stop_token_ids"]) == ("/completions", tokens(question), [0])
                assert (body["temperature"], body["max_tokens"]) == (0, self.most)
                answered(one, Reply("…", tokens=(*tokens(SAID[0](question)), END, 65)[: self.most]))

    monkeypatch.setattr(engine, "running", running)
    monkeypatch.setattr(engine, "Client", Client)
    monkeypatch.setattr(engine, "patched_folder", lambda *_: contextlib.nullcontext(Path()))
    monkeypatch.setattr(engine, "beginnings", lambda own, *about: own.beginnings(*about))
    monkeypatch.setitem(globals(), "SAID", [well])
    monkeypatch.setitem(globals(), "VERSIONS", ["1.0"])
    return asked


SAID: list[Said] = []
VERSIONS: list[str] = []


def remarks(act: Callable[[], object]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        act()
    return [str(one.message) for one in caught]


def make(folder: Path, said: Said = well, **settings: Any) -> EngineEvaluator:
    own: Any = Own(folder, said)
    return EngineEvaluator(own, Backend(kind="vllm", **settings))


def test_one_engine_answers_all_that_a_gate_asks(tmp_path: Path, started: list[list[str]]) -> None:
    """Ask several sets, as it is and with units: one start each, and a sample of each is asked again."""
    one = make(tmp_path)
    prompts = one.questions.harmful.report
    said = remarks(lambda: one.answers((), prompts))
    assert said == ["a/one: the student as it is: 16 of 16 answers of vllm 1.0 in float32 begin as the harness's own "
                    "(32 tokens)."]  # fmt: skip
    one.answers((), one.questions.harmless.report)
    assert [len(asked) for asked in started] == [len(dict.fromkeys(started[0])) + SAMPLE]
    (said,) = remarks(lambda: one.answers(("unit",), prompts))  # type: ignore[arg-type]
    assert "the patched student: 16 of 16" in said
    assert len(started) == 2
    assert {each.verdict.value for each in one.answers((), prompts)} == {"refused"}
    assert one.answers((), prompts)[0].answer == well(prompts.texts[0])
    engine = {"kind": "vllm", "version": "1.0", "dtype": "float32", "arguments": ""}
    assert one.identity() == {"student": "s", "dtype": "float32", "engine": engine}


def test_identity_names_the_version_before_anything_is_asked(tmp_path: Path, started: list[list[str]]) -> None:
    assert make(tmp_path, arguments=("--seed", "3")).identity()["engine"]["version"] == "1.0"
    assert len(started) == 1


@pytest.mark.parametrize(
    ("own", "alike"),
    [
        (lambda question: well(question)[:20], 0),  # ends where the engine goes on
        (lambda question: well(question) + " and more", 16),  # is the same as far as it is looked at
        (lambda question: "Sure, " + question, 0),
        (lambda question: well(question) if "harmful" in question else "?", 8),
    ],
    ids=["shorter", "longer", "other", "half"],
)
def test_an_engine_of_other_answers_proves_nothing(
    tmp_path: Path, started: list[list[str]], own: Said, alike: int
) -> None:
    """Expect an error that says how many agree, and no second start after it."""
    one = make(tmp_path, own)
    if alike == SAMPLE:
        one.answers((), one.questions.harmful.report)
        return
    for _ in range(2):
        with pytest.raises(SourceError, match=rf"only {alike} of 16 answers of vllm 1.0 in float32 begin as"):
            one.answers((), one.questions.harmful.report)
    assert len(started) == 1
    assert alike == 0 or make(tmp_path, own, agreement=0.5).answers((), one.questions.harmful.report)


@pytest.mark.usefixtures("started")
def test_an_engine_that_never_started_has_no_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expect the error again, and no identity with a version that nobody knows."""

    def fails(*_: Any) -> None:
        raise SourceError("no engine")

    monkeypatch.setattr(engine, "running", fails)
    one = make(tmp_path)
    for _ in range(2):
        with pytest.raises(SourceError, match="no engine"):
            one.identity()


@pytest.mark.usefixtures("started")
def test_an_engine_that_changes_its_mind_is_told(tmp_path: Path) -> None:
    counted: dict[str, int] = {}

    def fickle(question: str) -> str:
        counted[question] = counted.get(question, 0) + 1
        return well(question) + " again" * counted[question]

    SAID[0] = fickle
    one = make(tmp_path)
    (said,) = remarks(lambda: one.answers((), one.questions.harmful.report))
    assert said.endswith("(32 tokens); asked twice, 16 came out otherwise.")


@pytest.mark.usefixtures("started")
def test_an_engine_of_another_version_is_no_pair(tmp_path: Path) -> None:
    one = make(tmp_path)
    one.answers((), one.questions.harmful.report)
    VERSIONS[0] = "1.1"
    with pytest.raises(SourceError, match=r"was version 1.0 before, and is 1.1 now"):
        one.answers(("unit",), one.questions.harmful.report)  # type: ignore[arg-type]
