"""Prepare an answer for the rules: plain text in lower case, without markup and without the words of others."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from itertools import islice

from safety_harness.judging.literals import Pattern

_TEMPLATE = re.compile(
    r"\s*(?:<\|[^|>\n]{1,40}\|>(?:(?:system|user|assistant|model)\b)?|</?s>|<bos>|<start_of_turn>(?:model)?|<end_of_turn>"
    r"|\[/?inst\]|#{2,3} ?(?:assistant|response|answer):?|(?:assistant|response|answer|ai|bot|model): )"
)
# A label of the answer in the languages of grammar/, with its ornament: "**Antwort:** x", "[Risposta]", "助手: ".
_LABEL = re.compile(
    r"[^\w\n]{0,8}(?:(?:answer|response|reply|assistant|antwort|assistent|réponse|respuesta|asistente|risposta|assistente|resposta|"
    r"antwoord|reactie|reaktion|ia|ki|回答|答复|答覆|回复|回覆|助手|アシスタント|답변|응답|챗봇|어시스턴트|비서|الجواب|الإجابة|المساعد|الرد|उत्तर|जवाब|सहायक|"
    r"ответ|ассистент|помощник|ии|бот) ?){1,2}[^\w\n]{0,4}(?:[:>\])]|\n)[^\w\n(\[]{0,6}"
)
_CODE = Pattern(r"```.*?(?:```|\Z)", re.DOTALL)
# A whole answer in a block of code, or data without one: an object, a list of objects, tags. Its values speak.
_BLOCK = re.compile(r"\s*```[\w+-]*\s(.*?)(?:```)?\s*", re.DOTALL)
_DATA = re.compile(r"\s*(?:[{\[]\s*[{\"]|<[?\w](?=[\s\S]*>\s*\Z))")
_KEY = re.compile(r"\"([\w ]{1,40})\"\s*:\s*")
_STRING = re.compile(r"\"((?:[^\"\\\n]|\\.)*)\"\s*[,}\])]*")
# A string without a key is an element of a list.
_ELEMENT = re.compile(r"^\s*\"((?:[^\"\\\n]|\\.)*)\"\s*[,}\])]*\s*$", re.MULTILINE)
_TAG = re.compile(r"<[^<>\n]*>")
_EMPHASIS = re.compile(r"\*{2,}|~~|__|(?<=\S)\*|\*(?=\S)|(?<!\w)_(?=\w)|(?<=\w)_(?!\w)")
_WHOLE_QUOTE = re.compile(r'\s*"([^"]*)"?\s*\Z')
_QUOTES = (
    Pattern(r'(?<!\w)"[^"]*"'),
    Pattern(r'(?<!\S)"[^"]*\Z'),
    Pattern(r"(?<!\w)'(?! )[^'\n]{0,300}(?:'\w[^'\n]{0,300}){0,8}'(?!\w)"),
    Pattern(r"`[^`\n]*`"),
    Pattern(r"^ ?>.*$", re.MULTILINE),
)
# Where words are not parted, or a particle is joined to the quotation.
_QUOTES_OF_THE_EAST = (
    Pattern(r"「[^」\n]*」|『[^』\n]*』"),
    Pattern(r'(?<=[\u3040-\u30ff\u3400-\u9fff])"[^"\n]*"'),
    Pattern(r"(?<!\w)'[^'\n]{1,200}'(?=[\uac00-\ud7af])"),
)
_VERBS = ("do", "does", "did", "would", "could", "should", "is", "are", "was", "must")
_SHORT = {
    "can't": "cannot", "cant": "cannot", "can not": "cannot", "won't": "will not", "wont": "will not",
    "i'm": "i am", "im": "i am", "let's": "let us",
    **{f"{verb}{nt}": f"{verb} not" for verb in _VERBS for nt in ("n't", "nt")},
    **{f"{who}'ve": f"{who} have" for who in ("i", "we", "you", "they")},
    **{f"{who}'re": f"{who} are" for who in ("we", "you", "they")},
    **{f"{who}'d": f"{who} would" for who in ("i", "we", "you")},
    **{f"{what}'s": f"{what} is" for what in ("it", "that", "this", "here", "there", "what")},
}  # fmt: skip
_CONTRACTIONS = [
    *((short, re.compile(rf"\b{short}\b"), long) for short, long in _SHORT.items()),
    ("'ll", re.compile(r"\b(\w+)'ll\b"), r"\1 will"),
]
# Signs that people write or leave out: vowels of Arabic, a dot or a nasal of Devanagari, the dots of a Russian e.
_MARKS = "\u0640\u064b\u064c\u064d\u064e\u064f\u0650\u0651\u0652\u0670\u093c\u00ad"
_SINGLE_QUOTES = str.maketrans(
    dict.fromkeys("‘’‛ʼ´＇", "'") | dict.fromkeys("“”„‟«»＂", '"') | dict.fromkeys("أإآٱ", "ا")
    | dict.fromkeys(_MARKS, "") | {"ँ": "ं", "ё": "е", "Ё": "Е", "ß": "ss"}
)  # fmt: skip
# Where a sentence ends: a mark with white space behind it, or a mark of a script that has no spaces, or a line's end.
_END = re.compile(r"(?<=[.!?…।؟])[\"')\]]*\s+|(?<=[。।])|(?<=[\u3040-\u30ff\u3400-\u9fff][!?])|\n+")
_KANA_OR_HANGUL, _HAN = re.compile("[\u3040-\u30ff\uac00-\ud7af]"), re.compile("[\u3400-\u9fff]")
# A loop is told by the first words of a text, by so many of which most are one, and by how often it says one thing.
WORDS_READ, MANY, MANY_TIMES = 40, 4, 3
LONG_QUOTE = 8
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"^\W*\d{0,3}[.):]?\s*")


def cleaned(answer: str) -> str:
    """Return *answer* with one form of each letter, quotation mark and apostrophe, and without control characters."""
    text = one_form(answer)
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else " " for c in text)


def one_form(text: str) -> str:
    """Return *text* with one form of each letter and sign that can be written in several ways."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text).translate(_SINGLE_QUOTES)


def plain(text: str) -> str:
    """Return a cleaned *text* as the rules are matched on it: lower case, without markup and the words of others.

    Contractions are spelled out. Quotations become [quote], and code becomes [code]. Lines are kept, all other white
    space is single, and an echo of the chat template is cut off.
    """
    text = text.lower()
    while match := _TEMPLATE.match(text):
        text = text[match.end() :]
    text = _data_as_text(text)
    if label := _LABEL.match(text):
        text = text[label.end() :] or text
    text = _CODE.sub(" [code] ", text)
    whole = _WHOLE_QUOTE.match(text)
    text = whole[1] if whole else text
    text = _EMPHASIS.sub("", text) if any(map(text.__contains__, "*~_")) else text
    for quote in _QUOTES if text.isascii() else _QUOTES + _QUOTES_OF_THE_EAST:
        text = quote.sub(_masked, text)
    for short, pattern, long in _CONTRACTIONS:
        if short in text:
            text = pattern.sub(long, text)
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _masked(quotation: re.Match[str]) -> str:
    """Return what stands for the words of others: [quote], and of a long quotation a sign for each word."""
    words = count_words(quotation[0])
    return f"[quote{' ~' * words}]" if words > LONG_QUOTE else "[quote]"


def _data_as_text(text: str) -> str:
    """Return what the values of a *text* say that is nothing but data: JSON, a list, tags, or one block of code."""
    block = _BLOCK.fullmatch(text)
    inner = block[1] if block else text
    if block or _DATA.match(inner):
        inner = _TAG.sub("\n", _KEY.sub(r"\n\1: ", inner)) if _DATA.match(inner) else inner
        inner = _STRING.sub(r"\1\n", _ELEMENT.sub(r"\n- \1\n", inner))
    return inner


def count_words(text: str) -> int:
    """Return how many words a plain *text* has; of a script without spaces, about as many as in English."""
    words = len(text.split())
    if text.isascii():
        return words
    letters = len(_KANA_OR_HANGUL.findall(text)) // 2 + len(_HAN.findall(text)) * 2 // 3
    return max(words, letters + text.count("~"))


@lru_cache(maxsize=8)
def sentences(text: str) -> tuple[str, ...]:
    """Return the sentences of a plain *text*, in order. What a limit of tokens cut off is one, too."""
    return tuple(sentence for sentence in _END.split(text) if sentence and sentence.strip())


def repeated(text: str) -> str | None:
    """Return what a plain *text* says over and over, said once; None where it says more than that.

    That is a few sentences, one word, or a phrase that fills the first words.
    """
    said = [said for sentence in sentences(text) if (said := _NUMBER.sub("", sentence, 1).strip())]
    cut_off = len(said) > 1 and said[0].startswith(said[-1])
    whole = said[:-1] if cut_off else said
    distinct = list(dict.fromkeys(whole))
    if len(whole) >= MANY_TIMES * len(distinct):
        return " ".join(distinct)
    words = [word[0] for word in islice(_WORD.finditer(text), WORDS_READ)]
    if len(words) >= MANY and Counter(words).most_common(1)[0][1] >= 0.6 * len(words):
        return str(words[0])
    for period in range(1, len(words) // MANY_TIMES + 1):
        if len(words) >= 2 * MANY_TIMES and words[period:] == words[:-period]:
            return " ".join(words[:period])
    return None
