"""Keep what a judge said, by the content of its case: a run that is taken up again does not ask it twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from safety_harness.errors import HarnessError
from safety_harness.files import cache_dir, explain_disk_errors, sha256_text
from safety_harness.judging.judge import Case, Judgement, Verdict
from safety_harness.reading import MIB, Reader

_READER = Reader(HarnessError, at_most=256 * MIB)
_LONGEST_REASON = 200
Judged = Callable[[int, Judgement], None]
"""Is called with the place of a case and its judgement, as soon as there is one."""


class ModelJudge(Protocol):
    """A judge that takes time: a model on this machine, or one behind a server."""

    name: str

    @property
    def fingerprint(self) -> str: ...

    @property
    def answered_as(self) -> tuple[str, ...]:
        """The names by which a server called the model that judged so far; of a model that is here, none."""

    def check(self) -> None:
        """Find out whether it can judge at all, before a student is loaded. HarnessError if it cannot."""

    def judge_many(self, cases: Sequence[Case], judged: Judged = ...) -> list[Judgement]: ...

    def close(self) -> None:
        """Release its model."""


@dataclass(frozen=True)
class _Entry:
    case: str
    judgement: Judgement


_ENTRY = TypeAdapter(_Entry)


class Kept:
    """A judge whose judgements are kept on disk. They hold digests, verdicts and reasons, and no text of a case.

    What it could not say is not kept: a server that did not answer may answer the next time.
    """

    def __init__(self, judge: ModelJudge) -> None:
        self.judge = judge
        self.name = judge.name
        self._known: dict[str, Judgement] | None = None

    @property
    def fingerprint(self) -> str:
        """Whatever changes a verdict of the judge."""
        return self.judge.fingerprint

    def missing(self, cases: Sequence[Case]) -> list[Case]:
        """Return those of *cases* that the judge has to be asked about, each once."""
        known = self._read()
        return list({digest: case for case in cases if (digest := _digest(case)) not in known}.values())

    def judge_many(self, cases: Sequence[Case]) -> list[Judgement]:
        """Return the judgement of each case, of the judge or of an earlier run.

        Raises:
            HarnessError: the judge fails. What it said before is kept.
        """
        known = self._read()
        missing = self.missing(cases)
        if missing:
            said = self.judge.judge_many(missing, lambda at, judgement: self._keep(_digest(missing[at]), judgement))
            now = {_digest(case): judgement for case, judgement in zip(missing, said, strict=True)}
            return [now.get(digest) or known[digest] for digest in map(_digest, cases)]
        return [known[_digest(case)] for case in cases]

    def _read(self) -> dict[str, Judgement]:
        if self._known is None:
            self._known = {}
            for line in self._lines():
                try:
                    entry = _ENTRY.validate_json(line)
                except ValidationError:  # cut short by a kill
                    continue
                self._known[entry.case] = entry.judgement
        return self._known

    def _lines(self) -> list[str]:
        try:
            return _READER.text(self._file).split("\n") if self._file.exists() else []
        except HarnessError:  # it is a cache
            return []

    @property
    def _file(self) -> Path:
        who = sha256_text(json.dumps([self.fingerprint, self.judge.answered_as]))
        return cache_dir() / "judgements" / f"{who[:24]}.jsonl"

    def _keep(self, case: str, judgement: Judgement) -> None:
        if judgement.verdict is Verdict.UNSCORED and judgement.harmful is None:
            return
        self._read()[case] = judgement
        row = {
            "case": case,
            "judgement": {
                "verdict": judgement.verdict,
                "reason": judgement.reason[:_LONGEST_REASON],
                "harmful": judgement.harmful,
                "probability": judgement.probability,
            },
        }
        with explain_disk_errors(self._file):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.touch(mode=0o600)
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")


def _digest(case: Case) -> str:
    return sha256_text(json.dumps([case.question, case.answer, case.conversation]))
