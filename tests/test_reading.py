"""Check that a file of any kind and content is read or refused: within limits, with its name and the place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_harness.errors import DataError, SourceError
from safety_harness.files import sha256_file
from safety_harness.reading import Reader

READER = Reader(DataError, missing="no such file. Look again.", advice="Ask for it.", at_most=1 << 20)
WAYS: list[Callable[[Path], Any]] = [READER.content, READER.text, READER.json, READER.table, READER.toml]


def refusal(read: Callable[[Path], Any], file: Path) -> str:
    """Return the one line that *read* says of *file*."""
    with pytest.raises(DataError) as caught:
        read(file)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- Files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", WAYS)
def test_what_is_no_file_is_refused_unread(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    """Name a pipe that nobody writes to, an endless device by way of a link, and a folder."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "link", "."):
        assert refusal(read, tmp_path / name).startswith(f"{tmp_path / name}: cannot be read (it is a ")


@pytest.mark.parametrize("read", WAYS)
def test_a_name_that_cannot_be_is_an_error(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    """Name no file, a file below a file, a name that is too long, and names with a null byte and a line break."""
    (tmp_path / "file").touch()
    for name in ("gone", "file/below", "x" * 300, "nu\0ll", "line\nbreak", "\udcff"):
        assert "no such file. Look again." in (told := refusal(read, tmp_path / name)) or "cannot be read (" in told


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("[1]")
    (tmp_path / "link").symlink_to("file")
    assert READER.json(tmp_path / "link") == [1]


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    """Refuse 1 TiB of nothing at once, and a file that grows over the limit; read one that just fits."""
    with (tmp_path / "sparse").open("wb") as stream:
        stream.truncate(1 << 40)
    assert "has more than 1 MiB" in refusal(READER.content, tmp_path / "sparse")
    (tmp_path / "fits").write_bytes(b" " * (1 << 20))
    assert len(READER.content(tmp_path / "fits")) == 1 << 20
    assert "has more than" in refusal(Reader(DataError, at_most=8).content, Path("/proc/self/status"))


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="Linux")
def test_a_read_that_fails_is_an_error() -> None:
    assert "cannot be read (" in refusal(READER.content, Path("/proc/self/mem"))


def test_a_hash_is_of_a_file_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", Path("/dev/zero"), tmp_path / ("x" * 300)):
        with pytest.raises(SourceError, match="cannot be read"):
            sha256_file(place)


# --- Text ------------------------------------------------------------------------------------------------------------


def test_text_comes_without_mark_and_carriage_returns(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert READER.text(tmp_path / "a") == "one\ntwo\nthree\n"


def test_another_encoding_is_named_with_its_byte(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"caf\xe9")
    assert refusal(READER.text, tmp_path / "a") == f"{tmp_path / 'a'}: not UTF-8 (byte 3). Convert it to UTF-8."


# --- JSON ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "EOF while parsing"),
        ("{} {}", "trailing characters at line 1 column 4"),
        ('{"a":\n tru}', "expected ident at line 2"),
        ("[" * 100_000, "recursion limit"),
        ('{"a":' * 100_000, "recursion limit"),
        ("[" * 999 + "]" * 999, "recursion limit"),
        ("9" * 5_000, "number out of range"),
        ("[1, -" + "9" * 4_000 + "]", "a number of 4001 digits"),
        ("[NaN]", "NaN is no number of JSON"),
        ("[-Infinity]", "-Infinity is no number of JSON"),
        ("1e999", "1e999 is too large a number"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands there twice"),
        ('["\\ud83d"]', "half of a character"),
        ('["\\udc00"]', "half of a character"),
        ("[" + "0," * 400_000 + "0]", None),
    ],
)
def test_json_is_read_within_limits(tmp_path: Path, text: str, cause: str | None) -> None:
    (tmp_path / "a").write_text(text)
    if cause is None:
        assert READER.json(tmp_path / "a") == json.loads(text)
    else:
        assert cause in (told := refusal(READER.json, tmp_path / "a"))
        assert told.startswith(f"{tmp_path / 'a'}: not JSON (")
        assert told.endswith("). Ask for it.")


def test_json_of_too_many_lists_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(DataError, match="more than 1000000 lists and objects"):
        READER.parse("[" + "[]," * 1_000_000 + "[]]", "a")


def test_a_table_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("[]")
    assert "expected a JSON object" in refusal(READER.table, tmp_path / "a")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    # JSON writes what is no half of a character.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


@given(value=VALUES, ascii_only=st.booleans())
def test_what_is_json_is_read_as_it_was_written(value: object, ascii_only: bool) -> None:
    assert READER.parse(json.dumps(value, ensure_ascii=ascii_only), "a") == value


# --- TOML ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("a =\n", "Invalid value (at line 1, column 4)"),
        ("a = " + "[" * 100_000, "nested too deep"),
        ("a = " + "[" * 250 + "]" * 250, "nested too deep"),
        ("a" + ".a" * 400 + " = 1", "nested too deep"),
        ("[" + "a." * 400 + "a]", "nested too deep"),
        ("[" + "a." * 500_000 + "a]", "too many parts (at line 1)"),
        ("a = " + "9" * 5_000, "too many parts (at line 1)"),
        ("\na = [{ b = -" + "1_" * 4_000 + "1 }]", "too many parts (at line 2)"),
        ("a = 0x" + "f" * 90_000, "too many parts (at line 1)"),
        ("a = 0b" + "1" * 90_000, "too many parts (at line 1)"),
        ("a = 1\na = 2\nb = 3", "Cannot overwrite a value (at line 2"),
        ("a = 2024-02-30", "line 1"),
        ('a = "\0"', "line 1"),
        ("\ufeffa = 2024-02-28", None),
        (f'# {"_" * 999}\na = "{"cafe" * 40}"', None),
        ("\ufeffa = 1\r\nb = [1.5]\r\n", None),
    ],
)
def test_toml_is_read_within_limits(tmp_path: Path, text: str, cause: str | None) -> None:
    (tmp_path / "a").write_text(text, newline="")
    if cause is None:
        assert "a" in READER.toml(tmp_path / "a")
    else:
        assert cause in (told := refusal(READER.toml, tmp_path / "a"))
        assert told.startswith(f"{tmp_path / 'a'}: not valid TOML: ")
