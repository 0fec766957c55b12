"""``hf`` sources: the real clients, huggingface_hub and datasets, against a hub that a test fills and breaks."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import save

from safety_harness.errors import SourceError
from safety_harness.registry.fetch import resolve, resolve_prompts
from safety_harness.registry.prompts import read_prompts
from safety_harness.registry.schema import PromptSource, Source
from safety_harness.weights.checkpoint import Checkpoint
from tests.fake_hub import Hub

WEIGHTS = save({"w": torch.arange(256.0)})
FETCHED = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": WEIGHTS,
    "tokenizer.model": b"pieces",
    "chat_template.jinja": b"{{ messages }}",
    "vocab.txt": b"one\ntwo\n",
}
LEFT = {
    "pytorch_model.bin": b"a pickle",
    "optimizer.pt": b"a pickle",
    "modeling_own.py": b"raise SystemExit('run!')",
    "README.md": b"# Model",
    "checkpoint-1/model.safetensors": WEIGHTS,
}
MODEL = FETCHED | LEFT
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


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def fetched(folder: Path) -> dict[str, bytes]:
    """Name in the repository -> content, of all that the client presents as whole."""
    files = [path for path in folder.rglob("snapshots/*/**/*") if path.is_file()]
    return {path.as_posix().split("/snapshots/")[1].split("/", 1)[1]: path.read_bytes() for path in files}


# --- Models ----------------------------------------------------------------------------------------------------------


def test_of_a_repository_the_safe_files_arrive_and_no_other_is_asked_for(hub: Hub, home: Path) -> None:
    hub.add("org/model", MODEL)
    folder = resolve(Source(hf="org/model"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FETCHED
    assert fetched(home) == FETCHED
    asked = {request.rpartition("/")[2] for request in hub.requests if "/resolve/" in request}
    assert asked == set(FETCHED)
    assert not [request for request in hub.requests if "checkpoint-1" in request]
    assert b"a pickle" not in [path.read_bytes() for path in home.rglob("*") if path.is_file()]


def test_a_fetched_repository_is_a_checkpoint(hub: Hub) -> None:
    hub.add("org/model", MODEL)
    checkpoint = Checkpoint(resolve(Source(hf="org/model")))
    assert checkpoint.tensor("w").tolist() == list(range(256))


def test_a_repository_with_nothing_but_a_pickle_is_no_checkpoint(hub: Hub) -> None:
    hub.add("org/model", {"config.json": b"{}", "pytorch_model.bin": b"a pickle"})
    with pytest.raises(SourceError, match=r"holds no \.safetensors file"):
        Checkpoint(resolve(Source(hf="org/model")))
    assert not [request for request in hub.requests if "pytorch_model" in request]


@pytest.mark.parametrize("name", [None, "vocab.txt"])
def test_a_revision_is_what_it_says(hub: Hub, name: str | None) -> None:
    first = hub.add("org/model", {"config.json": b"{}", "vocab.txt": b"old"}, "v1")
    hub.add("org/model", {"config.json": b"{}", "vocab.txt": b"new"})
    for revision, expected in ((None, "new"), ("v1", "old"), (first, "old"), ("main", "new")):
        found = resolve(Source(hf="org/model", file=name, revision=revision))
        assert (found if name else found / "vocab.txt").read_text() == expected


def test_one_file_is_fetched_alone_and_its_hash_is_checked(hub: Hub, home: Path) -> None:
    hub.add("org/model", MODEL)
    right = Source(hf="org/model", file="vocab.txt", sha256=sha256(MODEL["vocab.txt"]))
    assert resolve(right).read_bytes() == MODEL["vocab.txt"]
    assert set(fetched(home)) == {"vocab.txt"}
    wrong = right.model_copy(update={"sha256": "0" * 64})
    for _ in range(2):  # neither when it comes nor when it lies in the cache
        with pytest.raises(SourceError, match=f"vocab.txt: sha256 is {right.sha256}, but the registry pins {'0' * 64}"):
            resolve(wrong)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source(hf="org/none"), "hf:org/none: .*RepositoryNotFoundError: 401 .*Check the name"),
        (
            Source(hf="org/none", file="a.gguf"),
            "hf:org/none/a.gguf: .*RepositoryNotFoundError: 401 .*your access",
        ),
        (Source(hf="org/model", revision="v9"), "hf:org/model@v9: .*RevisionNotFoundError: 404 .*the revision"),
        (Source(hf="org/model", revision="9" * 40), "hf:org/model@999.*: .*RevisionNotFoundError: 404 .*the revision"),
        (Source(hf="org/model", revision="v9", file="vocab.txt"), "hf:org/model@v9/vocab.txt: .*RevisionNotFoundError"),
        (Source(hf="org/model", file="a.gguf"), "hf:org/model/a.gguf: .*EntryNotFoundError: 404 "),
        (Source(hf="org/model", file="../a.gguf"), "hf:org/model/../a.gguf: cannot be fetched"),
        (Source(hf="org/gated"), "hf:org/gated: .*GatedRepoError: 401 .*`hf auth login`"),
        (Source(hf="org/gated", file="vocab.txt"), "hf:org/gated/vocab.txt: .*GatedRepoError: 401 .*`hf auth login`"),
        (PromptSource(hf="org/model", file="vocab.txt"), "hf:org/model/vocab.txt: .*RepositoryNotFoundError"),
    ],
    ids=str,
)
def test_what_the_hub_refuses_is_named_with_its_reason(hub: Hub, home: Path, source: Source, message: str) -> None:
    hub.add("org/model", MODEL)
    hub.add("org/gated", MODEL)
    hub.gated.add("org/gated")
    with pytest.raises(SourceError, match=message):
        resolve(source)
    assert fetched(home) == {}


@pytest.mark.parametrize("name", [None, "vocab.txt"])
def test_no_hub_at_all_is_said(hub: Hub, name: str | None) -> None:
    hub.stop()
    with pytest.raises(SourceError, match=r"cannot be fetched from the hub .*Check .*your network"):
        resolve(Source(hf="org/model", file=name))


@pytest.mark.parametrize("name", [None, "model.safetensors"])
def test_what_was_fetched_is_found_with_the_hub_gone(hub: Hub, name: str | None) -> None:
    commit = hub.add("org/model", MODEL)
    found = resolve(Source(hf="org/model", file=name))
    hub.stop()
    assert resolve(Source(hf="org/model", file=name)) == found
    assert resolve(Source(hf="org/model", file=name, revision=commit)) == found


# --- Downloads that break off ----------------------------------------------------------------------------------------


def cut_off(hub: Hub) -> None:
    """Half of the weights come, and then nothing: the client gives up after a few attempts."""
    hub.cuts["model.safetensors"] = itertools.chain([len(WEIGHTS) // 2], itertools.repeat(0))


def shorten(hub: Hub) -> None:
    hub.short.add("model.safetensors")


@pytest.mark.parametrize("name", [None, "model.safetensors"])
@pytest.mark.parametrize("damage", [cut_off, shorten])
def test_a_part_is_never_taken_for_the_whole(
    hub: Hub, home: Path, damage: Callable[[Hub], None], name: str | None
) -> None:
    hub.add("org/model", MODEL)
    damage(hub)
    source = Source(hf="org/model", file=name)
    for _ in range(2):
        with pytest.raises(SourceError, match=r"hf:org/model.*: cannot be fetched from the hub"):
            resolve(source)
        assert "model.safetensors" not in fetched(home)
    hub.cuts.clear()
    hub.short.clear()
    found = resolve(source)
    assert (found if name else found / "model.safetensors").read_bytes() == WEIGHTS


def test_a_download_that_breaks_off_once_is_completed(hub: Hub) -> None:
    hub.add("org/model", MODEL)
    hub.cuts["model.safetensors"] = iter([100, len(WEIGHTS)])
    assert (resolve(Source(hf="org/model")) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_snapshot_with_a_file_missing_is_not_taken_for_the_whole_with_the_hub_gone(hub: Hub, home: Path) -> None:
    hub.add("org/model", MODEL)
    shorten(hub)
    with pytest.raises(SourceError):
        resolve(Source(hf="org/model"))
    assert fetched(home), "the other files have come, so that the folder looks used"
    hub.stop()
    with pytest.raises(SourceError, match=r"cannot be fetched from the hub .IncompleteSnapshotError"):
        resolve(Source(hf="org/model"))


# --- Question sets ---------------------------------------------------------------------------------------------------


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
    assert questions(PromptSource(hf="org/set", file="q.txt", sha256=sha256(b"how ?\n"))) == ("how ?",)


def test_columns_whose_names_differ_in_marks_alone_do_not_share_a_file(hub: Hub) -> None:
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
def test_a_dataset_that_cannot_be_asked_is_named_and_nothing_is_kept(
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


def test_another_revision_in_the_cache_is_not_taken_for_the_one_asked_for(hub: Hub) -> None:
    """Left to itself, datasets gives what it loaded last when the hub is out of reach."""
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
