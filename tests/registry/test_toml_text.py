"""Check that tables written as TOML are read back as they were."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from safety_harness.registry.toml_text import document_text, value_text

# TOML has no half characters, and its numbers are of 64 bits.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
plain = st.one_of(
    texts, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))


@given(st.dictionaries(texts, values, max_size=4))
def test_a_document_is_read_back_as_it_was(table: dict[str, Any]) -> None:
    """Write tables of any depth, with any keys."""
    assert tomllib.loads(document_text(table)) == table


@given(values)
def test_a_value_is_read_back_as_it_was(value: Any) -> None:
    """Write one value behind a key."""
    assert tomllib.loads(f"key = {value_text(value)}") == {"key": value}
