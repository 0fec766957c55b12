"""Split an answer into the parts of its speakers: a second one may comply where the first one refuses."""

from __future__ import annotations

import re

# A line that begins with a name: in brackets, or with a colon behind it. Names are short.
_BRACKETS = r"[\[({<*]+[^\])}>*\n]{1,40}[\])}>*]+:?"
_NAME = (
    r"[^\w\s\[({]{0,3} ?(?:[A-Z][\w.'’-]*|[a-z]?[A-Z]{2,}[\w-]*)(?: [A-Z#(\d][\w.#)-]*){0,3}"
    r"(?: (?:Mode|Output|Response))* ?:"
)
_SIGN = r"(?:[Α-Ωα-ω]|[\U0001F300-\U0001FAFF☀-➿]{1,3}️?)(?=[ :])"
_AS = r"As (?:an? )?[A-Z][\w.-]*,"
_SHAPES = [
    re.compile(rf"^[\"'*_`#> -]{{0,6}}(?P<name>{shape})", re.MULTILINE) for shape in (_BRACKETS, _NAME, _SIGN, _AS)
]
# They head a part of one speaker's answer.
_HEADINGS = re.compile(
    r"(?i)\W*(?:(?:important |safety |final |moral |side |please )?(?:note|notice|warning|disclaimer|reminder|caution"
    r"|tips?|example|steps?|question|answer|response|reply|ingredients|instructions|directions|method|conclusion"
    r"|introduction|summary|title|subject|resources?|alternatives?|options?|part|chapter|section|day|week|phase|scene"
    r"|setting|reasons?|edit|sources?|from|to|dear|date|p\.?s|update|results?|output|input|code|explanation"
    r"|translation|pros|cons|name|author|remember|as an ai|act|verse|chorus|bridge|outro|intro|fade in|int|ext"
    r"|location|time|materials|equipment|prompt|policy|status))\b[\w .]{0,15}\W*"
)
# Who asks: what they say in a few words is not the model's answer.
_ASKS = re.compile(r"(?i)\W*(?:user|human|you|system|developer)\W*")
FEW_WORDS = 8


def parts(text: str) -> list[str]:
    """Return what each speaker of a cleaned *text* says, without the name; the text itself where there is one speaker.

    There are several where lines begin with different names of one form. The few words of one who asks are left out.
    """
    for pattern in _SHAPES:
        found = [match for match in pattern.finditer(text) if not _HEADINGS.fullmatch(match["name"])]
        names = {match["name"].strip(" :[](){}<>*").lower() for match in found}
        if len(names) < 2 or names == {"q", "a"}:  # one speaker's questions and answers
            continue
        # Three signs or more, no two alike, before lines of a list. It is judged as one.
        if 3 <= len(found) == len(names) and not any(name.isalnum() for name in names):
            continue
        begins = [match.end("name") for match in found]
        ends = [match.start() for match in found[1:]] + [len(text)]
        before = text[: found[0].start()]
        said = [
            text[begin:end]
            for match, begin, end in zip(found, begins, ends, strict=True)
            if not _ASKS.fullmatch(match["name"]) or len(text[begin:end].split()) >= FEW_WORDS
        ]
        return [before, *said] if before.strip() or not said else said
    return [text]
