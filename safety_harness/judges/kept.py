"""Keep what a judge said, by the content of its case: a run that is taken up again does not ask it twice."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from safety_harness.errors import HarnessError
from safety_harness.files import append_line, cache_dir, sha256_text
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
        missing = self.missing(cases)
        digests = [_digest(case) for case in missing]
        now: dict[str, Judgement] = {}
        if missing:
            said = self.judge.judge_many(missing, lambda at, judgement: self._keep(digests[at], judgement))
            now = dict(zip(digests, said, strict=True))
        found = {**self._read(), **now}
        return [found[_digest(case)] for case in cases]

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

    @functools.cached_property  # a fingerprint takes a moment, and each judgement is written by itself
    def _file(self) -> Path:
        who = sha256_text(json.dumps([self.fingerprint, self.judge.answered_as]))
        return cache_dir() / "judgements" / f"{who[:24]}.jsonl"

    def _keep(self, case: str, judgement: Judgement) -> None:
        if judgement.verdict is Verdict.UNSCORED and judgement.harmful is None:
            return
        self._read()[case] = judgement
        entry = _Entry(case, replace(judgement, reason=judgement.reason[:_LONGEST_REASON]))
        append_line(self._file, json.dumps(asdict(entry)))


def _digest(case: Case) -> str:
    return sha256_text(json.dumps([case.question, case.answer, case.conversation]))
