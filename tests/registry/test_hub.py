"""Check models and files of the hub: the real client, huggingface_hub, with a hub that a test fills and breaks."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from safety_harness.errors import SourceError
from safety_harness.registry.fetch import resolve
from safety_harness.registry.sources import PromptSource, Source
from safety_harness.weights.checkpoint import Checkpoint
from tests.fake_hub import Hub

WEIGHTS = save({"w": torch.arange(256.0)})
FETCHED = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": WEIGHTS,
    "tokenizer.model": b"pieces",
    "chat_template.jinja": b"{{ messages }}",
    "vocab.txt": b"one\ntwo\n",
    "additional_chat_templates/default.jinja": b"{{ messages }}",
}
LEFT = {
    "pytorch_model.bin": b"a pickle",
    "optimizer.pt": b"a pickle",
    "modeling_own.py": b"raise SystemExit('run!')",
    "README.md": b"# Model",
    "checkpoint-1/model.safetensors": WEIGHTS,
    "checkpoint-1/config.json": b"{}",
    "additional_chat_templates/notes.txt": b"notes",
    "consolidated.safetensors": WEIGHTS,
}
MODEL = FETCHED | LEFT


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def fetched(folder: Path) -> dict[str, bytes]:
    """Return name in the repository -> content, of every file that the client presents as whole."""
    files = [path for path in folder.rglob("snapshots/*/**/*") if path.is_file()]
    return {path.as_posix().split("/snapshots/")[1].split("/", 1)[1]: path.read_bytes() for path in files}


# --- Models ----------------------------------------------------------------------------------------------------------


def test_only_safe_files_of_a_repository_are_fetched(hub: Hub, home: Path) -> None:
    hub.add("org/model", MODEL)
    folder = resolve(Source(hf="org/model"))
    assert all((folder / name).read_bytes() == content for name, content in FETCHED.items())
    assert fetched(home) == FETCHED
    asked = {request.split("/resolve/")[1].split("/", 1)[1] for request in hub.requests if "/resolve/" in request}
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
    """Send half of the weights and then nothing: the client gives up after a few attempts."""
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


def test_partial_snapshot_is_refused_when_the_hub_is_gone(hub: Hub, home: Path) -> None:
    hub.add("org/model", MODEL)
    shorten(hub)
    with pytest.raises(SourceError):
        resolve(Source(hf="org/model"))
    assert fetched(home), "the other files have come, so that the folder looks used"
    hub.stop()
    with pytest.raises(SourceError, match=r"cannot be fetched from the hub .IncompleteSnapshotError"):
        resolve(Source(hf="org/model"))
