"""Check question sets of the hub: the real client, datasets, with a hub that a test fills and breaks."""

from __future__ import annotations

import io
import itertools
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from safety_harness.errors import SourceError
from safety_harness.files import sha256_text
from safety_harness.registry.fetch import resolve_prompts
from safety_harness.registry.named import expand, sets
from safety_harness.registry.prompts import read_prompts
from safety_harness.registry.sources import PromptSource, SplitSpec
from safety_harness.registry.splits import read_source, read_split
from tests.fake_hub import Hub

# A split is named only where a file's name does not tell it.
SPLITS = b"""---
configs:
- config_name: default
  data_files:
  - {split: train, path: data/train.jsonl}
  - {split: gaps, path: data/gaps.jsonl}
---
"""
QUESTIONS = ("how ?", "why \u2028 ?")


class Bomb:
    """Fails the test that unpickles it."""

    def __reduce__(self) -> tuple[object, ...]:
        return pytest.fail, ("a pickle was read",)


def jsonl(texts: tuple[str | None, ...]) -> bytes:
    return "".join(json.dumps({"question": text, "n": number}) + "\n" for number, text in enumerate(texts)).encode()


def parquet(texts: tuple[str, ...]) -> bytes:
    raw = io.BytesIO()
    datasets.Dataset.from_dict({"question": texts, "n": range(len(texts))}).to_parquet(raw)
    return raw.getvalue()


def questions(source: PromptSource) -> tuple[str, ...]:
    return tuple(read_prompts(resolve_prompts(source)).texts)


@pytest.mark.parametrize("kind", [jsonl, parquet])
def test_a_column_of_a_split_becomes_a_prompt_file(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, kind: Callable[[tuple[str, ...]], bytes]
) -> None:
    ending = kind.__name__
    hub.add(
        "datasets/org/set",
        {f"data/train.{ending}": kind(("who ?",)), f"data/test.{ending}": kind(QUESTIONS), "README.md": b"# Set"},
    )
    hub.add("org/set", {f"data/test.{ending}": kind(("a model's",))})
    source = PromptSource(hf="org/set", column="question", split="test")
    assert questions(source) == QUESTIONS
    assert questions(PromptSource(hf="org/set", column="question")) == ("who ?",)
    assert questions(PromptSource(hf="org/set", column="question", split="test[:1]")) == QUESTIONS[:1]
    found = resolve_prompts(source)
    assert found.is_relative_to(cache)
    # In one process datasets remembers what a hub held, so that a hub gone would prove little.
    monkeypatch.delattr(datasets, "load_dataset")
    assert resolve_prompts(source) == found
    assert {path.suffix for path in cache.rglob("*") if path.is_file()} == {".jsonl"}, "nothing else is left behind"


def test_a_file_of_a_question_set_comes_from_a_dataset(hub: Hub) -> None:
    hub.add("datasets/org/set", {"q.txt": b"how ?\n"})
    hub.add("org/set", {"q.txt": b"a model's\n"})
    assert questions(PromptSource(hf="org/set", file="q.txt", sha256=sha256_text("how ?\n"))) == ("how ?",)


def test_columns_with_similar_names_have_files_of_their_own(hub: Hub) -> None:
    rows = [{"a/b": "one ?", "a--b": "two ?", "../a b": "three ?"}]
    hub.add("datasets/org/set", {"train.json": json.dumps(rows).encode()})
    assert [questions(PromptSource(hf="org/set", column=name)) for name in rows[0]] == [
        (text,) for text in rows[0].values()
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": "text"}, "hf:org/set: has no column 'text', only question, n. Correct `column`"),
        ({"column": "n"}, "hf:org/set: column 'n' does not hold text alone"),
        ({"column": "question", "split": "gaps"}, "hf:org/set: column 'question' does not hold text alone"),
        ({"column": "question", "split": "half"}, "hf:org/set: .*half.*Check the name, the revision, the split"),
        ({"column": "question", "revision": "v9"}, "hf:org/set@v9: the dataset cannot be loaded .*Revision 'v9'"),
        ({"column": "question", "hf": "org/none"}, "hf:org/none: the dataset cannot be loaded .*doesn't exist"),
        ({"column": "question", "hf": "org/gated"}, "hf:org/gated: .*gated dataset.*`hf auth login`"),
        ({"column": "question", "hf": "org/empty"}, "hf:org/empty: the dataset cannot be loaded .EmptyDatasetError"),
        ({"column": "question", "hf": "org/code"}, "hf:org/code: the dataset cannot be loaded .*no longer supported"),
        ({"column": "question", "hf": "org/pickle"}, "hf:org/pickle: the dataset cannot be loaded"),
    ],
)
def test_unusable_dataset_is_named_and_nothing_is_kept(
    hub: Hub, cache: Path, options: dict[str, Any], message: str
) -> None:
    files = {"data/train.jsonl": jsonl(QUESTIONS), "data/gaps.jsonl": jsonl(("how ?", None))}
    hub.add("datasets/org/set", files | {"README.md": SPLITS})
    hub.add("datasets/org/gated", files)
    hub.gated.add("datasets/org/gated")
    hub.add("datasets/org/empty", {"README.md": b"# Set"})
    hub.add("datasets/org/code", files | {"code.py": b"raise SystemExit('run!')"})
    hub.add("datasets/org/pickle", {"train.pkl": pickle.dumps(Bomb())})
    with pytest.raises(SourceError, match=message):
        resolve_prompts(PromptSource.model_validate({"hf": "org/set"} | options))
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_dataset_is_not_had_without_its_hub(hub: Hub) -> None:
    hub.stop()
    with pytest.raises(SourceError, match=r"hf:org/set: the dataset cannot be loaded .*your network"):
        resolve_prompts(PromptSource(hf="org/set", column="question"))


def test_cached_revision_is_not_taken_for_the_pinned_one(hub: Hub) -> None:
    """Refuse what datasets gives when the hub is out of reach: the revision that it loaded last."""
    hub.add("datasets/org/set", {"train.jsonl": jsonl(("old ?",))}, "v1")
    hub.add("datasets/org/set", {"train.jsonl": jsonl(("new ?",))}, "v2")
    assert questions(PromptSource(hf="org/set", column="question", revision="v1")) == ("old ?",)
    hub.stop()
    with pytest.raises(SourceError, match="hf:org/set@v2: the dataset cannot be loaded"):
        resolve_prompts(PromptSource(hf="org/set", column="question", revision="v2"))


def test_a_local_folder_is_not_taken_for_a_dataset(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("datasets/org/set", {"train.jsonl": jsonl(("the hub's ?",))})
    (tmp_path / "org/set").mkdir(parents=True)
    (tmp_path / "org/set/train.jsonl").write_bytes(jsonl(("mine ?",)))
    monkeypatch.chdir(tmp_path)
    assert questions(PromptSource(hf="org/set", column="question")) == ("the hub's ?",)


@pytest.mark.parametrize("damage", ["cut", "short"])
def test_a_part_of_a_dataset_is_never_taken_for_the_whole(hub: Hub, cache: Path, damage: str) -> None:
    content = jsonl(("how ?", "why ?"))
    hub.add("datasets/org/set", {"train.jsonl": content})
    if damage == "cut":
        # At the end of a line, where what has come is well-formed.
        hub.cuts["train.jsonl"] = itertools.chain([content.index(b"\n") + 1], itertools.repeat(0))
    else:
        hub.short.add("train.jsonl")
    source = PromptSource(hf="org/set", column="question")
    with pytest.raises(SourceError, match="hf:org/set: the dataset cannot be loaded"):
        resolve_prompts(source)
    assert not [path for path in cache.rglob("*") if path.is_file()]
    hub.cuts.clear()
    hub.short.clear()
    assert questions(source) == ("how ?", "why ?")


# --- Rows ------------------------------------------------------------------------------------------------------------

ROWS = [
    {"question": "1 + 1 ?", "answer": "one and one\n#### 2", "label": "Easy", "category": "sums"},
    {"question": "7 * 8 ?", "answer": "#### 56", "label": "hard", "category": "products"},
]
CONFIGS = b"""---
configs:
- config_name: main
  data_files: [{split: train, path: main.jsonl}]
- config_name: other
  data_files: [{split: train, path: other.jsonl}]
---
"""


def test_rows_of_a_dataset_keep_what_is_asked_of_them(hub: Hub) -> None:
    """Read the answers, categories and chosen rows of one configuration, as a registry names them."""
    main = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    hub.add("datasets/org/set", {"README.md": CONFIGS, "main.jsonl": main, "other.jsonl": jsonl(("other ?",))})
    source = {"hf": "org/set", "config": "main", "column": "question", "answer": "answer"}
    prompts = read_source(PromptSource.model_validate(source))
    assert [(prompt.text, prompt.answer, prompt.category) for prompt in prompts] == [
        ("1 + 1 ?", "2", "sums"),
        ("7 * 8 ?", "56", "products"),
    ]
    chosen = read_source(PromptSource.model_validate(source | {"where": {"label": ["easy", "none"]}}))
    assert chosen.texts == ["1 + 1 ?"]
    assert read_source(PromptSource(hf="org/set", config="other", column="question")).texts == ["other ?"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": {"kind": "easy"}}, r"has no column 'kind', only question, answer, label, category.*`where`"),
        ({"answer": "right"}, r"has no column 'right'.*`answer`"),
        ({"config": "none"}, r"the dataset cannot be loaded"),
    ],
)
def test_a_missing_column_of_a_dataset_is_named(hub: Hub, options: dict[str, Any], message: str) -> None:
    hub.add("datasets/org/set", {"train.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode()})
    with pytest.raises(SourceError, match=message):
        read_source(PromptSource.model_validate({"hf": "org/set", "column": "question"} | options))


def test_named_sets_of_the_hub_are_pinned_and_split(hub: Hub) -> None:
    """Fetch both kinds of XSTest in one reading of its rows each."""
    rows = [{"prompt": f"how long is river {n} ?", "type": "a", "label": ("safe", "unsafe")[n % 2]} for n in range(40)]
    revision = sets("harmless")["xstest"].source["revision"]
    files = {"data/test.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode()}
    hub.add("datasets/walledai/XSTest", files, revision)
    for kind, first in (("harmless", 0), ("harmful", 1)):
        split = read_split(SplitSpec.model_validate(expand(kind, "xstest")), 1.0)
        assert {*split.search.texts, *split.report.texts} == {row["prompt"] for row in rows[first::2]}
