"""Name what can go wrong in a reduction, as one small tree.

DdminError
├── ArgumentError (ValueError)     units, weights, budget, strategy or known answers cannot be used
├── NotReproduced (RuntimeError)   the oracle does not accept the full set: there is nothing to reduce
├── BadAnswer     (RuntimeError)   the oracle returned neither a bool nor, where one is expected, a score
└── JournalError  (RuntimeError)   the journal cannot be opened, read or written, or belongs to another oracle

Unresolved stands apart: an oracle raises it to say that a question has no answer.
"""

from __future__ import annotations

from typing import Any

from safety_harness.ddmin.types import Answer, Reduction

_PARTIAL = "__ddmin_partial__"


class DdminError(Exception):
    """Base of the errors that this package itself raises."""


class ArgumentError(DdminError, ValueError):
    """An argument of `minimize` cannot be used."""


class NotReproduced(DdminError, RuntimeError):  # noqa: N818 - says what happened
    """The oracle does not accept the full set."""


class BadAnswer(DdminError, RuntimeError):  # noqa: N818 - says what happened
    """The oracle returned neither a bool nor the score that was expected, perhaps because it returned nothing."""


class JournalError(DdminError, RuntimeError):
    """The journal cannot be used; the file is left as it was."""


class Unresolved(Exception):  # noqa: N818 - an answer, not an error
    """A question without an answer, raised by an oracle: neither true nor false, and not asked again."""


def partial_result(error: BaseException) -> Reduction[Any] | None:
    """Return the best reduction reached before `error` left `minimize`; None if no set had been accepted yet."""
    partial = vars(error).get(_PARTIAL)
    return partial if isinstance(partial, Reduction) else None


def attach_partial(error: BaseException, partial: Reduction[Any]) -> None:
    """Attach the best reduction so far to `error`: for `partial_result` and, as a note, for its traceback."""
    vars(error)[_PARTIAL] = partial
    error.add_note(f"Delta debugging ended here after {partial.calls} calls; best so far: {partial}.")


def not_reproduced(answer: Answer, count: int) -> NotReproduced:
    """Return the error for an oracle whose answer on the full set of `count` units was not TRUE."""
    answer_text = "has no answer (Unresolved)" if answer is Answer.UNRESOLVED else "is false"
    return NotReproduced(
        f"the oracle {answer_text} on the full set of {count} units, so there is nothing to reduce; "
        "check that the oracle is deterministic and that the units together do what is wanted"
    )
