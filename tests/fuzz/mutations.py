"""Change files as chance, a careless hand or a hostile one would: bytes, words, lines and structure."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable

# What parsers are known to stumble over.
TOKENS = (
    b"[" * 5_000, b'{"a":' * 3_000, b"9" * 5_000, b"-1", b"1e999", b"NaN", b"-Infinity", b"inf", b"true", b"null",
    b'"', b"'", b'""', b"{", b"}", b"[", b"]", b",", b";", b":", b"\t", b"\n", b"\r\n", b"\n\n", b"\0", b"\xff",
    b"\xed\xa0\x80", b"\\ud83d", b"\\u0000", b"\xef\xbb\xbf", b"\xe2\x80\x8b", b"\xe2\x80\xa8", b"&a ", b"*a",
    b"<<: *a", b"!!binary x", b"!!python/object:os.system ", b"2024-99-99", b"0-999999999", b"0x" + b"f" * 9_000,
    b"../", b"/" * 5_000, b"x" * 200_000, b"a." * 3_000, b"- " * 3_000, b"# ", b"---\n", b"%", b"=",
    b"{{ 10 ** 10 ** 8 }}", b"{% for a in range(10 ** 9) %}", struct.pack("<Q", 1 << 40), struct.pack("<Q", 1 << 63),
    struct.pack("<Q", 7), b"PK\x05\x06", b"PK\x01\x02",
)  # fmt: skip
# Stand where a value stood: of another type, size or sign.
VALUES = (
    b"null", b"true", b"0", b"-1", b"1", b"0.5", b"1e308", b"1" + b"0" * 30, b"9" * 5_000, b"1_0", b"+1", b"nan", b"[]",
    b"{}", b'""', b'"\\u0000"', b'"~x"', b"[[[[]]]]", b'{"a": {"a": []}}', b'"' + b"y" * 300 + b'"', b'"0-999999999"',
    b'"1.gate[0-999999999]"', b'"\xc3\xa9"', b"[" * 150 + b"]" * 150, b"[" * 900 + b"]" * 900, b'["a", 1]',
    b"2024-01-01", b'"../../x"', b'"/dev/zero"',
)  # fmt: skip
_VALUE = re.compile(rb'"(?:[^"\\\n]|\\.)*"|-?\d+(?:\.\d+)?|\b(?:true|false|null)\b|\[[^\[\]\n]*\]|\{[^{}\n]*\}')


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 4, 32))):
        if data:
            data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[_place(data, rng) :]


def _drop(data: bytearray, rng: random.Random) -> None:
    at = _place(data, rng)
    del data[at : at + rng.choice((1, 2, 8, 64, 512))]


def _insert(data: bytearray, rng: random.Random) -> None:
    at = _place(data, rng)
    data[at:at] = rng.choice(TOKENS)


def _overwrite(data: bytearray, rng: random.Random) -> None:
    at, token = _place(data, rng), rng.choice(TOKENS)[:64]
    data[at : at + len(token)] = token


def _repeat(data: bytearray, rng: random.Random) -> None:
    at = _place(data, rng)
    piece = data[at : at + rng.choice((1, 8, 64, 256))]
    data[at:at] = piece * rng.choice((1, 1, 2, 50, 1_000))


def _splice(data: bytearray, rng: random.Random) -> None:
    """Put a part of the file where another part stood."""
    one, other = _place(data, rng), _place(data, rng)
    data[one : one + rng.choice((4, 32, 256))] = data[other : other + rng.choice((4, 32, 256))]


def _revalue(data: bytearray, rng: random.Random) -> None:
    """Put another value where a string, number, list or table stood, or the key of one."""
    if found := list(_VALUE.finditer(data)):
        start, end = rng.choice(found).span()
        data[start:end] = rng.choice((rng.choice(VALUES), rng.choice(VALUES), data[slice(*rng.choice(found).span())]))


def _relines(data: bytearray, rng: random.Random) -> None:
    """Drop, double, swap or join lines."""
    lines = data.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[other])
        case 2:
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            lines[at : at + 2] = [b"".join(lines[at : at + 2])]
    data[:] = b"\n".join(lines)


_WAYS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip, _cut, _drop, _insert, _insert, _overwrite, _repeat, _splice, _revalue, _revalue, _revalue, _relines,
)  # fmt: skip


def _place(data: bytearray, rng: random.Random) -> int:
    """Draw a place, more often one in the beginning: headers are there."""
    return rng.randrange(min(len(data), rng.choice((16, 400, len(data))))) if data else 0


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Change *data* in one to four ways."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(_WAYS)(changed, rng)
    return bytes(changed)
