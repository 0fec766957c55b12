"""Count the sentences of README and docs, and those that are too long: ``python docs/sentences.py [PAGE ...]``.

Only running text counts: no headings, tables, code, images or HTML. A list item is a text of its own.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAX_WORDS = 30
MAX_LONG_SHARE = 0.03

_FENCED = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.DOTALL | re.MULTILINE)
_NO_TEXT = re.compile(r"^ *(\||#|<|\[[^\]]+\]:).*$", re.MULTILINE)
_ITEM = re.compile(r"^ *(?:[-*+]|\d+\.) +", re.MULTILINE)
_IMAGE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_CODE = re.compile(r"`[^`]+`")
# A full stop ends a sentence where white space follows, or a closing mark and white space.
_END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\.\.)[.!?][\"')*_]*\s+")
_WORD = re.compile(r"[^\W_]")


def pages() -> list[Path]:
    """Return the pages that the bar applies to: README and everything in docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def sentences(markdown: str) -> Iterator[str]:
    """Yield the sentences of a page, with links and code reduced to what a reader sees."""
    text = _NO_TEXT.sub("", _FENCED.sub("", markdown))
    text = _LINK.sub(r"\1", _IMAGE.sub("", _CODE.sub("code", text)))
    for paragraph in re.split(r"\n\s*\n", _ITEM.sub("\n\n", text)):
        for sentence in _END.split(" ".join(paragraph.split()) + " "):
            if _WORD.search(sentence):
                yield sentence.strip()


def word_count(sentence: str) -> int:
    """Return the number of words: what stands between spaces and holds a letter or a digit."""
    return sum(bool(_WORD.search(part)) for part in sentence.split())


def long_sentences(page: Path) -> tuple[int, list[str]]:
    """Return how many sentences *page* has, and those of more than MAX_WORDS words."""
    every = list(sentences(page.read_text(encoding="utf-8")))
    return len(every), [sentence for sentence in every if word_count(sentence) > MAX_WORDS]


def main(arguments: Sequence[str]) -> int:
    """Print one line a page and the long sentences; return 1 if their share is above the bar."""
    total = too_long = 0
    for page in map(Path, arguments) if arguments else pages():
        count, long_ones = long_sentences(page)
        total, too_long = total + count, too_long + len(long_ones)
        print(f"{len(long_ones):4} of {count:4}  {page}")
        for sentence in long_ones:
            print(f"      {word_count(sentence)} words: {sentence}")
    share = too_long / total if total else 0.0
    print(f"{too_long} of {total} sentences have over {MAX_WORDS} words: {share:.1%} (bar: {MAX_LONG_SHARE:.0%})")
    return int(share > MAX_LONG_SHARE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
