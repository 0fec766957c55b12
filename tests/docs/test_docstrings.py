"""Check that the functions of the package say what they do, beginning with a verb.

Next to this test, verbs.txt holds the verbs that may begin a docstring, in base form, one a line. Every function counts
that has a docstring, except for properties, fixtures and overloads: they stand for a thing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "safety_harness"
MIN_SHARE = 0.95
THINGS = {"property", "cached_property", "fixture", "setter", "overload"}

VERBS_FILE = Path(__file__).with_name("verbs.txt")
VERBS = frozenset(VERBS_FILE.read_text(encoding="utf-8").split())


def functions_with_docstring() -> Iterator[tuple[str, str]]:
    """Yield where each counted function stands, and its docstring."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            decorators = " ".join(map(ast.unparse, node.decorator_list))
            docstring = ast.get_docstring(node)
            if docstring and not THINGS & set(re.findall(r"\w+", decorators)):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}", docstring


def first_verb(docstring: str) -> str:
    """Return the verb that begins a docstring, or an empty text.

    A word that "of" or a colon follows is a noun, even if it could be a verb: "Share of the answers".
    """
    found = re.match(r"[A-Za-z]+(?=\s(?!of\b)|[.,])", docstring)
    word = found.group().lower() if found else ""
    return word if word in VERBS else ""


def test_docstrings_begin_with_a_verb() -> None:
    """At least 95 % of the functions with a docstring say first what they do."""
    every = list(functions_with_docstring())
    assert len(every) > 300
    unclear = [f"{place}: {docstring.splitlines()[0]}" for place, docstring in every if not first_verb(docstring)]
    share = 1 - len(unclear) / len(every)
    assert share >= MIN_SHARE, (
        f"{share:.1%} of {len(every)} docstrings begin with a known verb; {MIN_SHARE:.0%} must. Begin each of these "
        "with a verb in base form and its object ('Return the ...'). If its first word is one already, add it to "
        f"{VERBS_FILE.name}:\n" + "\n".join(unclear)
    )


def test_verbs_are_told_from_other_words() -> None:
    """A noun, an article, a question word, markup and a third person are no verbs in base form."""
    assert first_verb("Return the sum.") == "return"
    assert first_verb("Share pages between workers.") == "share"
    for docstring in (
        "The sum.",
        "What is left.",
        "How far.",
        "Returns it.",
        "Share of it.",
        "Score: x.",
        "`x` again.",
        "",
    ):
        assert first_verb(docstring) == ""


def test_verbs_are_listed_in_order() -> None:
    listed = VERBS_FILE.read_text(encoding="utf-8").splitlines()
    assert listed == sorted(set(listed))
