"""Check that no change of a patch's or a model's files crashes a command or lets anything but the patch be written."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from safety_harness.errors import HarnessError
from safety_harness.patch.apply import State, apply, verify
from safety_harness.patch.card import card
from safety_harness.patch.compare import compare
from safety_harness.patch.folder import MANIFEST, PATCH, SUMS, open_artifact, sums
from safety_harness.weights.checkpoint import Checkpoint


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Change, cut out, double or insert a few bytes of *data*, more often in its beginning, the header."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(min(len(changed), rng.choice((16, 400, len(changed))))) if changed else 0
        length = rng.choice((1, 1, 2, 8, 64))
        match rng.randrange(5):
            case 0:
                changed[at : at + length] = rng.randbytes(length)
            case 1:
                del changed[at : at + length]
            case 2:
                changed[at:at] = changed[at : at + length]
            case 3:
                changed[at:at] = rng.choice(
                    (b'"', b"{", b"[", b"0", b"-1", b"9" * 20, b"NaN", b"null", b"\x00", b"../")
                )
            case 4:
                changed[at : at + length] = bytes(byte ^ (1 << rng.randrange(8)) for byte in changed[at : at + length])
    return bytes(changed)


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [MANIFEST, PATCH, SUMS])
def test_a_mutated_patch_is_an_error_or_does_what_it_says(
    patch: Path, world: Path, tmp_path: Path, name: str, count: int
) -> None:
    """Change a file in any way, with sums made to fit: nothing crashes, and nothing but the patch is ever written."""
    rng = random.Random(20261125)
    file = patch / name
    whole, true_sums = file.read_bytes(), (patch / SUMS).read_bytes()
    sound = open_artifact(shutil.copytree(patch, tmp_path / "sound"))
    manifest = sound.manifest
    described = manifest.entries, manifest.rest
    refused = 0
    for number in range(count):
        file.write_bytes(mutated(whole, rng))
        if name != SUMS:
            (patch / SUMS).write_text(sums(patch))
        try:
            artifact = open_artifact(patch)
            card(artifact.manifest)
            compare(artifact, sound)
            if (artifact.manifest.entries, artifact.manifest.rest) != described or name == PATCH:
                apply(artifact, world / "student", tmp_path / "out")
                assert verify(sound, tmp_path / "out").state is State.APPLIED, number  # as if nothing had been changed
                shutil.rmtree(tmp_path / "out")
        except HarnessError:
            refused += 1
        assert not (tmp_path / "out").exists()
    assert refused > count / 2
    file.write_bytes(whole)
    (patch / SUMS).write_bytes(true_sums)
    assert open_artifact(patch).manifest == manifest


@pytest.mark.parametrize("count", [100, pytest.param(3_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "model.safetensors"])
def test_a_mutated_model_is_an_error_foreign_or_the_same(
    patch: Path, world: Path, tmp_path: Path, name: str, count: int
) -> None:
    """Change a model's file in any way: the patch is put into it, or it is refused, and nothing crashes."""
    rng = random.Random(20261125)
    artifact = open_artifact(patch)
    model = shutil.copytree(world / "student", tmp_path / "model")
    if name.endswith("index.json"):
        (model / "model.safetensors").rename(model / "one.safetensors")
        index = {"weight_map": dict.fromkeys(Checkpoint(world / "student").shapes, "one.safetensors")}
        (model / name).write_text(json.dumps(index))
    whole = (model / name).read_bytes()
    assert verify(artifact, model).state is State.CLEAN
    verdicts = {State.CLEAN: 0, State.FOREIGN: 0}
    for _ in range(count):
        (model / name).write_bytes(mutated(whole, rng))
        try:
            verdicts[verify(artifact, model).state] += 1
            apply(artifact, model, tmp_path / "out")
            shutil.rmtree(tmp_path / "out")
        except HarnessError:
            assert not (tmp_path / "out").exists()
    assert verdicts[State.FOREIGN] or name != "model.safetensors"
    if name == "model.safetensors":  # a header's metadata may change, and nothing else
        assert verdicts[State.CLEAN] < count / 100
