"""Put a question into a template: its slot is replaced once, and nothing in the question is expanded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from safety_harness.attacks.attack import Attack, Misfit
from safety_harness.conversation import Conversation, Role, Turn
from safety_harness.errors import DataError
from safety_harness.files import sha256_text
from safety_harness.reading import MIB, Reader

QUESTION, OBJECT = "{question}", "{object}"
VERSION = 1
"""Version of the code that fills templates and rewrites questions. Raise it when a conversation changes."""

_SLOT = re.compile(r"\{(question|object)\}")
_TEMPLATE = Reader(DataError, missing="this template cannot be read (it does not exist). Check the path.", at_most=MIB)

Rewrite = Callable[[str, Random], str | Misfit]


@dataclass(frozen=True)
class Template:
    """Turns and a prefill with one slot for the question, and the name of what is done to the question first."""

    turns: tuple[tuple[Role, str], ...]
    prefill: str = ""
    rewrite: str = ""

    @property
    def slots(self) -> int:
        """How many places there are for the question."""
        return sum(text.count(QUESTION) for _, text in self.turns)

    @property
    def content(self) -> str:
        """All that it says, as one line."""
        return json.dumps(asdict(self))

    def fill(self, question: str, words: Mapping[str, str]) -> Conversation:
        """Return the conversation that asks *question*, with *words* in the prefill's slots."""

        def filled(text: str, words: Mapping[str, str]) -> str:
            return _SLOT.sub(lambda slot: words.get(slot[1], slot[0]), text)

        turns = tuple(Turn(role, filled(text, {"question": question})) for role, text in self.turns)
        return Conversation(turns, filled(self.prefill, words))


def rewritten(question: str, rewrite: Rewrite | None, seed: int) -> str | Misfit:
    """Return what *rewrite* makes of *question*. It must change it, or the question would be asked as it is."""
    if rewrite is None:
        return question
    changed = rewrite(question, Random(seed))
    return Misfit("nothing in it changes") if changed == question else changed


def file_attack(name: str, file: Path, kind: str = "template", source: str = "") -> Attack:
    """Return the attack whose user turn is the text of *file*, with the question in place of ``{question}``.

    Raises:
        DataError: the file cannot be read, is empty, or has no slot or several.
    """
    return text_attack(name, _TEMPLATE.text(file).strip(), kind, source or file.name, str(file))


def text_attack(name: str, text: str, kind: str, source: str, place: str) -> Attack:
    """Return the attack whose user turn is *text*. Errors name the *place* that it came from.

    Raises:
        DataError: as :func:`file_attack`.
    """
    template = Template((("user", text),))
    if template.slots != 1:
        held = f"{template.slots} slots" if template.slots else "no slot"
        raise DataError(
            f"{place}: this template of the attack {name!r} has {held} {QUESTION}, and the question stands in one. "
            "Write it once where the question belongs."
        )
    return Attack(
        name,
        kind,
        source,
        lambda question, _seed: template.fill(question, {}),
        f"{VERSION} {sha256_text(text)}",
    )
