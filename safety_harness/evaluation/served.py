"""Ask and score a student that a server answers for: by its answers alone, which are asked for before any is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from safety_harness.conversation import Asking, Decoding
from safety_harness.errors import ConfigError, SourceError, remark
from safety_harness.evaluation.answering import Answering
from safety_harness.evaluation.asking import SAMPLE, all_asked, askings, budget, sample_of
from safety_harness.evaluation.memo import Answered
from safety_harness.files import locked
from safety_harness.gate.records import Lineage
from safety_harness.judging.judge import Judgement, Verdict
from safety_harness.judging.rules import RuleJudge
from safety_harness.judging.thoughts import FINGERPRINT as THOUGHTS
from safety_harness.judging.thoughts import without_thought
from safety_harness.registry.load import Student
from safety_harness.registry.prompts import PromptSet
from safety_harness.registry.server import Served
from safety_harness.registry.splits import StudentSplits, load_questions
from safety_harness.served.client import Client
from safety_harness.served.journal import Journal
from safety_harness.served.reply import Reply
from safety_harness.weights.units import Unit

Counted = Callable[[int, int], None]


def announced(student: Student) -> str:
    """Return what a run is about to send to the server of *student*, as it is said before.

    Raises:
        DataError, SourceError: a question file is missing or wrong.
        ConfigError: the server does not take all of it.
    """
    server = _server(student)
    spent = budget(student, server, all_asked(student, load_questions(student)))
    return f"{student.id}: served by {server}: {spent.sentence}"


class ServedEvaluator(Answering):
    """A student that a server answers for. Everything that the suites ask is asked at once, when this is opened.

    Raises:
        HarnessError: the server does not answer all of it. What it answered is kept for the next run.
    """

    units: tuple[Unit, ...] = ()
    lineage: Lineage | None = None

    def __init__(self, student: Student, questions: StudentSplits, counted: Counted = lambda *_: None) -> None:
        self.student = student
        self.questions = questions
        # Whether a model marks thoughts is not known of a server.
        self.judge = RuleJudge(marks_thoughts=False)
        self._server = _server(student)
        self._replies: dict[str, Reply] = {}
        """The answers, by the key of what was asked."""
        self._systems: set[tuple[str, str]] = set()
        self._counted = counted
        asked = all_asked(student, questions)
        self.budget = budget(student, self._server, asked)
        self.client = Client(self._server, student.family.max_new_tokens, self.budget.at_most)
        self._says = self.client.describe()
        self._journal = Journal(self._settings())
        with locked(self._journal.file):  # of two runs, the second goes on with what the first one was answered
            self._ask_all(asked)

    @property
    def weighed(self) -> NoReturn:
        """Refuse to give weights.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{self.student.id}: is served, so there are no weights here to move.")

    @property
    def batch_size(self) -> int:
        """How many questions are asked at once."""
        return self._server.concurrency

    def close(self) -> None:
        """Forget the answers: they are judged, and the next gate asks again."""
        self._journal.forget()

    def answers(
        self, units: Sequence[Unit], prompts: PromptSet, *, decoding: Decoding | None = None
    ) -> tuple[Answered, ...]:
        """Return the judged answers to *prompts*. Those that nobody announced, as of a suite's own, are asked now.

        Raises:
            ConfigError: the server does not take one of these.
            SourceError: it does not answer one of these, or has another model by now.
        """
        assert not units
        asked = askings(self.student, prompts, decoding)
        if unknown := list({one.key: one for one in asked if one.key not in self._replies}.values()):
            for one in unknown:
                self._server.require(one.asked, one.decoding)
            more = len(unknown) * (1 + self._server.retries)
            remark(
                f"{self.student.id}: {len(unknown)} questions more than announced are asked ({prompts.name}): at most "
                f"{more} requests."
            )
            self.client.limit += more
            self.client.ask(unknown, _into(self._replies))
            self._require_one_model()
        return tuple(
            self._judged(prompt.id, self._replies[one.key]) for prompt, one in zip(prompts, asked, strict=True)
        )

    def shown(self, answer: str) -> str:
        """Return what is no thought in an *answer*."""
        return without_thought(answer).strip()

    def text(self, units: Sequence[Unit], documents: PromptSet) -> NoReturn:  # noqa: ARG002
        """Refuse to score a text, which takes the probabilities of tokens.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{self.student.id}: is served, and of a server nothing but its answers can be measured.")

    divergences = text  # type: ignore[assignment]  # its second argument has another name

    def identity(self) -> dict[str, Any]:
        """Return everything that is known of what a measurement depends on, as plain values."""
        systems = self._all_systems()
        return {
            "served": {
                **self._settings(),
                "answered_as": sorted({model for model, _ in systems if model}),
                "fingerprints": sorted({fingerprint for _, fingerprint in systems if fingerprint}),
            },
            "questions": self.questions.hashes,
            "judge": self.judge.fingerprint,
            "max_new_tokens": self.student.family.max_new_tokens,
            "thoughts": THOUGHTS,
        }

    def _all_systems(self) -> set[tuple[str, str]]:
        """Return by which names the server calls what answered; a filter's answer may have none."""
        return (self._systems | {_system(reply) for reply in self._replies.values()}) - {("", "")}

    def _settings(self) -> dict[str, Any]:
        """Return what decides the answers, as far as this side knows it."""
        sampling = self._server.body("", self.student.family.max_new_tokens)
        for name in ("model", "messages", "stream"):
            del sampling[name]
        return {
            "host": self._server.host, "model": self._server.model, "says": self._says, "sampling": sampling,
        }  # fmt: skip

    def _judged(self, identifier: str, reply: Reply) -> Answered:
        withheld = Judgement(Verdict.UNSCORED, "withheld by a filter, or a call of a tool")
        return Answered(identifier, reply.answer, withheld if reply.withheld else self.judge.judge(reply.answer))

    def _ask_all(self, asked: Sequence[Asking]) -> None:
        """Ask a sample of *asked* twice, then all that no earlier run was answered, then the sample again.

        Raises:
            SourceError: the server does not answer, or serves another model by the end.
        """
        sample = sample_of(asked, SAMPLE)
        rounds: list[dict[str, Reply]] = [{}, {}, {}]
        for answers in rounds[:2]:
            self.client.ask(sample, _into(answers))
        now = {_system(reply) for each in rounds for reply in each.values()}
        earlier = self._earlier(rounds)
        for one in sample:  # not before: a later run would take them for answers of the model of an earlier one
            self._note(one, rounds[0][one.key])
        for one in asked:
            known = earlier.get(one.key)
            if known and one.key not in self._replies and _system(known) in now:
                self._replies[one.key] = known
        self.client.ask([one for one in asked if one.key not in self._replies], self._note)
        self.client.ask(sample, _into(rounds[2]))
        drawn = any(not one.greedy for one in asked)
        self._compare([[each[one.key] for each in rounds] for one in sample], drawn=drawn)

    def _earlier(self, rounds: Sequence[Mapping[str, Reply]]) -> dict[str, Reply]:
        """Return the answers of an unfinished run, by the key of what was asked.

        None of them where the sample was answered otherwise then: as far as can be told, by another model.
        """
        earlier = self._journal.read()
        known = [(reply, key) for key in rounds[0] if (reply := earlier.get(key))]
        if known and all(reply.answer in [each[key].answer for each in rounds[:2]] for reply, key in known):
            return earlier
        if earlier:
            remark(
                f"{self.student.id}: the answers of an unfinished run are asked for again: its server may have another "
                "model by now."
            )
            self._journal.forget()
        return {}

    def _note(self, one: Asking, reply: Reply) -> None:
        self._journal.add(one.key, reply)
        self._replies[one.key] = reply
        self._counted(len(self._replies), self.budget.questions)

    def _compare(self, sample: Sequence[Sequence[Reply]], *, drawn: bool) -> None:
        """Remark that the answers to one question differ, or that they do not come from one system.

        Raises:
            SourceError: they come from more than one model.
        """
        self._systems |= {_system(reply) for replies in sample for reply in replies}
        other = [replies for replies in sample if len({reply.answer for reply in replies}) > 1]
        verdicts = sum(len({self._judged("", reply).verdict for reply in replies}) > 1 for replies in other)
        self._require_one_model()
        if verdicts and all(first.answer == second.answer for first, second, _ in sample):
            raise self._several(
                f"{verdicts} of {len(sample)} questions got one answer twice, and another verdict at last"
            )
        if other:
            remark(
                f"{self.student.id}: of {len(sample)} questions that were asked three times, {len(other)} had "
                f"different answers and {verdicts} different verdicts. The server is not deterministic, or serves "
                "another model by now: another run may come out otherwise."
            )
        if len(self._all_systems()) > 1:
            remark(
                f"{self.student.id}: its answers come from several systems, by what the server calls them "
                "(`system_fingerprint`); the report lists them. It may have changed while it was asked."
            )
        if "temperature" in self._server.omit:
            remark(f"{self.student.id}: is asked without a temperature, so another run may have other answers.")
        if "seed" in self._server.omit and drawn:
            remark(f"{self.student.id}: is asked without a seed, so another run will draw other answers.")

    def _require_one_model(self) -> None:
        """Check that all answers call their model by one name.

        Raises:
            SourceError: they do not.
        """
        models = sorted({model for model, _ in self._all_systems() if model})
        if len(models) > 1:
            raise self._several(f"its answers say {' and '.join(models)}")

    def _several(self, sign: str) -> SourceError:
        """Forget the answers, which nobody can say the model of, and return the error that says so."""
        self._journal.forget()
        return SourceError(
            f"{self.student.id}: {self._server} had more than one model while it was asked ({sign}), so nobody can say "
            "which one was gated. Run again when it has one."
        )


def open_served(student: Student, counted: Counted = lambda *_: None) -> ServedEvaluator:
    """Read the questions of a served *student* and ask them all.

    Raises:
        HarnessError: a question file cannot be used, or the server does not answer.
    """
    return ServedEvaluator(student, load_questions(student), counted)


def _server(student: Student) -> Served:
    assert student.spec.served is not None
    return student.spec.served


def _into(replies: dict[str, Reply]) -> Callable[[Asking, Reply], None]:
    """Return what puts each reply among *replies*."""
    return lambda one, reply: replies.__setitem__(one.key, reply)


def _system(reply: Reply) -> tuple[str, str]:
    """Return by which names a server calls what answered."""
    return reply.model, reply.fingerprint
