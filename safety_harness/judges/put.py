"""Put a question and its answer to a model that judges: cut to the length that it reads, and never as its markers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from safety_harness.errors import ConfigError, SourceError

QUESTION, ANSWER = "{question}", "{answer}"
# What stands where a text was cut.
GAP = "\n[…]\n"
# Fewer tokens of question and answer than this show nothing.
LEAST_TOKENS = 32
# Markers that are plain text, as many forms have: <|user|>, </s>, [INST], <<SYS>>, <END CONVERSATION>.
_TAG = re.compile(r"<{1,2}[^<>\n]{1,40}>{1,2}|\[/?[A-Z][A-Z_ ]{1,30}\]")
# The name of a speaker or a field in front of a text, at the beginning of its line.
_LABEL = re.compile(r"(?:^|\n)[ \t]*([A-Z][\w ]{0,30}:)\s*$")

Tokens = dict[str, list[int]]
"""What a tokenizer makes of a text: tokens, and for some models also the segment of each."""


@dataclass(frozen=True)
class Frame:
    """The text around a question and an answer."""

    before: str
    between: str
    after: str

    @classmethod
    def of(cls, text: str, where: str) -> Frame:
        """Return the frame that *text* is, in which `{question}` and `{answer}` stand for the two.

        Raises:
            ConfigError: it does not hold each of them once, in this order. *where* says whose text it is.
        """
        before, _, rest = text.partition(QUESTION)
        between, _, after = rest.partition(ANSWER)
        if [text.count(QUESTION), text.count(ANSWER)] != [1, 1] or before + QUESTION + between + ANSWER + after != text:
            raise ConfigError(f"{where}: must hold {QUESTION} and {ANSWER} once each, in this order.")
        return cls(before, between, after)

    def around(self, question: str, answer: str) -> str:
        """Return the whole text. Braces in question and answer are text."""
        return f"{self.before}{question}{self.between}{answer}{self.after}"

    @property
    def labels(self) -> list[str]:
        """The names that stand in front of the question and of the answer."""
        return [found[1] for text in (self.before, self.between) if (found := _LABEL.search(text))]


@dataclass(frozen=True)
class Put:
    """A case as the model reads it."""

    question: str
    answer: str
    cut: str
    """What was left out, or an empty string."""
    fault: str
    """Why the case cannot be put, or an empty string."""
    tokens: Tokens


class Putter:
    """Puts cases into one form, each within *limit* tokens.

    Text of a case never becomes a marker. Tokens that are markers, and tags that the form's own text has, are broken
    by a space. A case with a speaker's name of the form at the beginning of a line, or with one of the patterns
    *verdicts*, cannot be put: nothing tells that text from the form's own.

    Raises:
        ConfigError: the limit leaves no room for a case.
    """

    def __init__(
        self,
        tokenizer: Any,
        frame: Frame | None,
        *,
        encode: Callable[[str, str], Mapping[str, Any]],
        limit: int,
        verdicts: Iterable[str] = (),
        where: str,
    ) -> None:
        self._encode, self._limit = encode, limit
        own_text = frame.around("\n", "\n") if frame else ""
        added = tokenizer.added_tokens_decoder
        special = {one.content for one in added.values() if one.special} | set(tokenizer.all_special_tokens)
        in_form = {one.content for one in added.values() if one.content.strip() and one.content in own_text}
        tags = set(_TAG.findall(own_text))
        # Longest first, so that no marker is broken only in a part of it.
        markers = sorted((one for one in special | in_form | tags if one.strip()), key=lambda one: (-len(one), one))
        self._markers = re.compile("|".join(map(re.escape, markers)) or r"(?!)")
        self._marker_tokens = {at for at, one in added.items() if one.content in special | in_form}
        labels = frame.labels if frame else []
        forged = [rf"(?m:^)[ \t]*{re.escape(label)}" for label in labels] + [f"(?i:{one})" for one in verdicts]
        self._forged = re.compile("|".join(forged) or r"(?!)")
        self._frame_markers = self._count_markers(encode("a", "a"))
        needed = len(encode("", "")["input_ids"])
        if limit - needed < LEAST_TOKENS:
            raise ConfigError(
                f"{where}: reads {limit} tokens, and its form takes {needed} of them. Raise `max_tokens`, or take a "
                "model with a longer context."
            )

    def put(self, question: str, answer: str) -> Put:
        """Return the case as the model reads it: both ends of a text that is too long."""
        if found := self._forged.search(f"{question}\n{answer}"):
            return Put(question, answer, "", f"the text holds {found[0].strip()!r}, as the form of the judge does", {})
        question, answer = self.broken(question.strip()), self.broken(answer.strip())
        tokens = self._tokens(question, answer)
        whole, cut = len(tokens["input_ids"]), ""
        if whole > self._limit:
            question, answer, tokens = self._shortened(question, answer)
            cut = f"read {len(tokens['input_ids'])} of {whole} tokens, both ends"
        if self._count_markers(tokens) != self._frame_markers:
            return Put(question, answer, cut, "the text holds a marker of the judge's form", {})
        return Put(question, answer, cut, "", tokens)

    def broken(self, text: str) -> str:
        """Return *text* with a space inside each marker, so that it is read as text."""
        return self._markers.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def _tokens(self, question: str, answer: str) -> Tokens:
        return {name: list(values) for name, values in self._encode(question, answer).items()}

    def _count_markers(self, tokens: Mapping[str, Any]) -> Counter[int]:
        return Counter(token for token in tokens["input_ids"] if token in self._marker_tokens)

    def _shortened(self, question: str, answer: str) -> tuple[str, str, Tokens]:
        """Return the case within the limit. The question gives way only where it takes more than half of the room."""
        frame = len(self._encode("", "")["input_ids"])
        room = self._limit - frame
        of_question = len(self._encode(question, "")["input_ids"]) - frame
        of_answer = len(self._encode("", answer)["input_ids"]) - frame
        for_question = min(of_question, max(room // 2, room - of_answer))
        share = 1.0
        # Tokens are not spread evenly over a text, so the first guess may be too long.
        while True:
            short = (
                question if for_question == of_question else _ends(question, share * for_question / of_question),
                _ends(answer, share * (room - for_question) / max(of_answer, 1)),
            )
            tokens = self._tokens(*short)
            if len(tokens["input_ids"]) <= self._limit:
                return *short, tokens
            share *= 0.9


def _ends(text: str, share: float) -> str:
    """Return both ends of *text*, together about *share* of it, or the whole text."""
    if share >= 1:
        return text
    half = int(max(0, len(text) * share - len(GAP)) // 2)
    return text[:half] + GAP + text[len(text) - half :]


def chat_frame(tokenizer: Any, arguments: Mapping[str, Any], where: str) -> Frame:
    """Return the text that the chat template of *tokenizer* puts around a question and an answer.

    Raises:
        SourceError: there is no chat template, or it does not put the two once each, in this order.
    """
    if not tokenizer.chat_template:
        raise SourceError(f"{where}: has no chat template, in which it has to be asked. Get chat_template.jinja.")
    # Words that no template looks for, and that none can change.
    question, answer = "questionxqj", "answerxqj"
    why = ""
    # Templates of models that also read images take a list of parts.
    for parts in (False, True):
        conversation = [
            {"role": role, "content": [{"type": "text", "text": text}] if parts else text}
            for role, text in (("user", question), ("assistant", answer))
        ]
        try:
            text = str(
                tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True, **arguments)
            )
        except Exception as error:  # a template may raise any kind of error
            why = f" ({type(error).__name__}: {str(error).strip()[:200]})"
            continue
        if [text.count(question), text.count(answer)] == [1, 1] and text.index(question) < text.index(answer):
            before, _, rest = text.partition(question)
            return Frame(before, *rest.split(answer))
    raise SourceError(
        f"{where}: its chat template does not put a question and its answer once each{why}. Take the template that the "
        "model was published with, or name its `prompt`."
    )
