"""From a search to a released model, as a release engineer types it."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from safety_harness.cli.main import main
from safety_harness.errors import HarnessError
from safety_harness.patch.apply import State, apply, verify
from safety_harness.patch.card import card
from safety_harness.patch.compare import compare
from safety_harness.patch.folder import MANIFEST, PATCH, SUMS, open_artifact, sums
from safety_harness.weights.checkpoint import Checkpoint
from tests.fake_hub import Hub
from tests.samples import about, run_result, sample_checks

REGISTRY = """
[families.world]
teacher = {{ path = "{world}/good", licence = "llama2" }}
harmful = {{ search = "{world}/harmful.search.jsonl", report = "{world}/harmful.report.jsonl" }}
harmless = {{ search = "{world}/harmless.search.jsonl", report = "{world}/harmless.report.jsonl" }}
text = "{world}/text.search.jsonl"
max_new_tokens = 16
batch_size = 16
[families.world.students.plain]
path = "{world}/student"
task = {{ search = "{world}/task.search.jsonl", report = "{world}/task.report.jsonl" }}
[families.world.students.taught]
path = "{world}/good"
"""

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run the command; its exit code, and what it printed on either stream."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(list(map(str, arguments)))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def registry(world: Path, tmp_path: Path) -> Path:
    file = tmp_path / "registry.toml"
    file.write_text(REGISTRY.format(world=world), encoding="utf-8")
    return file


@pytest.fixture
def patch(say: Say, registry: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "patch"
    assert say("search", "world/plain", "--registry", registry, "--out", folder)[0] == 0
    return folder


def test_from_search_to_release_and_back(say: Say, registry: Path, world: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "patch", tmp_path / "released"
    code, said, _ = say("search", "plain", "--registry", registry, "--out", folder, "--with-original")
    assert code == 0
    assert re.fullmatch(rf"{folder}: world/plain, \d+\.\d\d% of the parameters, not gated\n", said)
    student = world / "student"
    assert say("verify", folder, student)[:2] == (1, f"{student}: clean\n")
    assert say("verify", folder, student, "--expect", "clean")[0] == 0
    code, said, _ = say("apply", folder, student, "--dry-run")
    assert code == 0
    assert re.fullmatch(rf"{student}: clean; \d+ parameters would change\n", said)
    assert say("apply", folder, student, "--out", out)[:2] == (0, f"{out}: written and read back\n")
    assert say("verify", folder, out)[:2] == (0, f"{out}: applied\n")
    assert say("apply", folder, student, "--out", out)[:2] == (
        0,
        f"{out}: already holds this patch. Nothing was written\n",
    )
    assert say("apply", folder, out, "--dry-run")[0] == 1
    assert say("revert", folder, out, "--dry-run")[:2] == (0, f"{out}: applied\n")
    assert say("revert", folder, out, "--dry-run", "--out", student)[0] == 2
    assert say("apply", folder, student, "--dry-run", "--out", out)[0] == 0  # which holds it already
    assert say("apply", folder, student, "--dry-run", "--out", folder)[0] == 2
    assert say("revert", folder, out, "--out", tmp_path / "again")[0] == 0
    for file in student.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
    (out / "generation_config.json").write_text("{}")
    assert say("verify", folder, out)[:2] == (
        1,
        f"{out}: applied\nnot what the gate saw: generation_config.json\n",
    )
    assert say("verify", folder, out, "--weights-only")[0] == 0
    shutil.copyfile(student / "generation_config.json", out / "generation_config.json")
    assert json.loads(say("verify", folder, out, "--json")[1]) == {
        "model": str(out), "state": "applied", "foreign": "", "unapplied": [], "beside": [],
    }  # fmt: skip


def test_the_manifest_keeps_to_its_published_schema(say: Say, patch: Path) -> None:
    code, said, _ = say("card", "--schema")
    assert code == 0
    jsonschema.validate(json.loads((patch / MANIFEST).read_text()), json.loads(said))
    published = Path(__file__).parents[2] / "docs" / "manifest.schema.json"
    assert published.read_text() == said, "write it again: safety-harness card --schema > docs/manifest.schema.json"


def test_the_manifest_says_whose_weights_and_how_they_were_found(patch: Path, world: Path) -> None:
    manifest = open_artifact(patch).manifest
    assert (manifest.student.source, manifest.teacher.source) == ("student", "good")
    assert manifest.teacher.licence == "llama2"
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= manifest.student.files.keys()
    assert manifest.search.minimal
    assert set(manifest.search.certificate.values()) == {"tested"}
    assert manifest.identity.batch_size == 16
    assert manifest.gate is None
    assert str(world) not in (patch / MANIFEST).read_text()  # nobody's business


def gated(patch: Path, results: Path, **facts: object) -> Path:
    """In *results* a run that gated what lies in *patch*, on another device, with other *facts* of the patch."""
    manifest = open_artifact(patch).manifest
    identity = {**manifest.identity.model_dump(), "device": "elsewhere"}
    run = run_result({"world/plain": sample_checks(120)})
    recorded = about(patch=manifest.search.model_dump(mode="json"), identity=identity)
    student = dataclasses.replace(run.students[0], about=recorded)
    table = json.loads(dataclasses.replace(run, students=(student,)).to_json())
    table["students"][0]["about"]["patch"] |= facts
    results.write_text(json.dumps(table), encoding="utf-8")
    return results


def test_the_gates_patch_and_evidence_go_along(
    say: Say, registry: Path, patch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = gated(patch, tmp_path / "results.json")
    monkeypatch.setenv("SAFETY_HARNESS_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("safety_harness.search.find.search", lambda *_: pytest.fail("a search"))
    out = tmp_path / "gated"
    code, said, _ = say("search", "plain", "--registry", registry, "--out", out, "--results", results, "--json")
    assert code == 0
    assert json.loads(said)["gate"] == "pass"
    found = open_artifact(out).manifest
    assert found.entries == open_artifact(patch).manifest.entries
    assert found.identity.device == "elsewhere"
    gate = found.gate
    assert gate is not None
    assert gate.checks["defense"].numbers["after"] == 120
    assert "flips" not in gate.checks["defense"].numbers
    code, said, _ = say("card", out)
    assert code == 0
    assert said == (out / "README.md").read_text()
    sentences = (
        "**PASS**",
        "with the 95 % interval: 0/128 (0.00–0.03) before, 120/128",
        "other (harmful, recorded and not gated): 3 → 150 of 200 refused.",
        "llama2",
    )
    for sentence in sentences:
        assert sentence in said


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"student": "world/other"}, "records no patch of world/plain"),
        ({"transfer": "add"}, "was found with transfer 'add'"),
        ({"units": 7}, "a field is missing or wrong: students.0.about.patch.units"),
        ({"units": ["9.gate"]}, "'9.gate' is no unit of this model"),
    ],
)
def test_what_is_no_patch_of_this_student_is_refused(
    say: Say, registry: Path, patch: Path, tmp_path: Path, facts: dict[str, Any], message: str
) -> None:
    results = gated(patch, tmp_path / "results.json", **facts)
    results.write_text(results.read_text().replace('"world/plain"', f'"{facts.get("student", "world/plain")}"'))
    out = tmp_path / "gated"
    code, _, error = say("search", "plain", "--registry", registry, "--out", out, "--results", results)
    assert code == 2
    assert message in error
    assert not out.exists()
    assert patch.exists()


def test_a_card_without_evidence_says_so(say: Say, patch: Path) -> None:
    said = say("card", patch)[1]
    assert "**Nothing: no gate has seen this patch.**" in said
    assert said.startswith("---\nlibrary_name: transformers\n")
    assert 'license: "llama2"' in said


def test_no_patch_is_exit_1(say: Say, registry: Path, tmp_path: Path) -> None:
    """The teacher itself as the student: it refuses enough."""
    code, said, _ = say("search", "taught", "--registry", registry, "--out", tmp_path / "none")
    assert code == 1
    assert said.startswith("world/taught: no patch is written: the student refuses enough as it is")
    assert not (tmp_path / "none").exists()


def test_two_patches(say: Say, registry: Path, patch: Path, tmp_path: Path) -> None:
    assert say("search", "plain", "--registry", registry, "--out", tmp_path / "same")[0] == 0
    code, said, _ = say("diff", patch, tmp_path / "same")
    assert code == 0
    assert re.fullmatch(r"(\d+) of \1 tensors are moved alike\n", said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("verify", "{tmp}/none", "{student}"), "no such folder"),
        (("verify", "{patch}", "{tmp}/none"), "no such model folder"),
        (("verify", "{student}", "{student}"), "SHA256SUMS: cannot be read"),
        (("apply", "{patch}", "{student}"), "--out is missing"),
        (("apply", "{patch}", "{student}", "--out", "{student}"), "which is never changed. Choose another --out"),
        (("apply", "{patch}", "{student}", "--out", "{tmp}"), "exists. Choose another place"),
        (("apply", "{patch}", "{tmp}/none", "--out", "{tmp}/x"), "no such model folder"),
        (("search", "plain", "--registry", "{tmp}/registry.toml", "--out", "{tmp}"), "exists"),
        (("revert", "{patch}", "{student}", "--out", "{tmp}/x"), "does not hold this patch"),
        (("export", "{patch}", "{student}", "--to", "mergekit", "--out", "{tmp}/x"), "--teacher is missing"),
        (("card",), "Name a patch"),
        (("search", "plian", "--registry", "{tmp}/registry.toml", "--out", "{tmp}/x"), "Did you mean"),
    ],
)
def test_wrong_input_is_exit_2_and_says_what(
    say: Say, patch: Path, world: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    places = {"tmp": tmp_path, "patch": patch, "student": world / "student"}
    code, _, error = say(*(argument.format(**places) for argument in arguments))
    assert code == 2
    assert said in error
    assert error.count("\n") == 1


def test_a_dry_run_asks_where_the_students_numbers_would_come_from(
    say: Say, patch: Path, world: Path, tmp_path: Path
) -> None:
    student, out = world / "student", tmp_path / "released"
    assert say("apply", patch, student, "--out", out)[0] == 0
    code, _, error = say("revert", patch, out, "--dry-run")
    assert (code, "Name the student's folder with --student" in error) == (2, True)
    assert say("revert", patch, out, "--dry-run", "--student", student)[0] == 0


def test_exports(say: Say, patch: Path, world: Path, tmp_path: Path) -> None:
    student = world / "student"
    assert say("export", patch, student, "--to", "full", "--out", tmp_path / "full")[0] == 0
    assert say("verify", patch, tmp_path / "full")[0] == 0


def test_a_patch_goes_to_a_hub_and_comes_back_whole(say: Say, patch: Path, hub: Hub, tmp_path: Path) -> None:
    (patch / "notes.txt").write_text("nobody's business")
    code, said, _ = say("upload", patch, "org/patch", "--json")
    assert code == 0
    commit = json.loads(said)["commit"]
    assert commit.startswith(f"{hub.url}/org/patch/commit/")
    assert hub.visibility == {"org/patch": "private"}
    files = hub.commit("org/patch", commit.rpartition("/")[2]).files
    assert files.keys() == {"manifest.json", "patch.safetensors", "README.md", "SHA256SUMS"}
    back = tmp_path / "back"
    back.mkdir()
    for name, content in files.items():
        (back / name).write_bytes(content)
    assert open_artifact(back).manifest == open_artifact(patch).manifest


def test_an_original_that_an_earlier_patch_left_on_the_hub_goes(say: Say, patch: Path, hub: Hub) -> None:
    hub.add("org/patch", {"original.safetensors": b"of an earlier one", "LICENSE": b"stays"})
    assert say("upload", patch, "org/patch")[0] == 0
    files = hub.commit("org/patch", "main").files
    assert files.keys() == {"manifest.json", "patch.safetensors", "README.md", "SHA256SUMS", "LICENSE"}


def test_a_hub_that_refuses_is_an_error(say: Say, patch: Path, hub: Hub) -> None:
    hub.gated.add("org/mine")
    for name in ("org/mine", "no name"):
        code, _, error = say("upload", patch, name)
        assert code == 2
        assert f"{name}: the hub did not take it" in error


def test_putting_a_patch_in_needs_no_torch(patch: Path, world: Path, tmp_path: Path) -> None:
    """A release job has no reason to install it."""
    program = (
        "import sys; from safety_harness.cli.main import main; code = main(sys.argv[1:])\n"
        "print(*({'torch', 'transformers', 'scipy'} & sys.modules.keys())); sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "apply", patch, world / "student", "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{tmp_path / 'out'}: written and read back", ""]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """*data* with a few of its bytes changed, cut out, doubled or put in: more often in its beginning, the header."""
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
def test_a_mutated_artifact_is_an_error_or_does_what_the_manifest_says(
    patch: Path, world: Path, tmp_path: Path, name: str, count: int
) -> None:
    """Whatever is done to a file, with sums that were made to fit: no crash, and nothing else is ever written."""
    rng = random.Random(20261125)
    file = patch / name
    whole, true_sums = file.read_bytes(), (patch / SUMS).read_bytes()
    sound = open_artifact(shutil.copytree(patch, tmp_path / "sound"))
    manifest = sound.manifest
    whole_story = manifest.entries, manifest.rest
    refused = 0
    for number in range(count):
        file.write_bytes(mutated(whole, rng))
        if name != SUMS:
            (patch / SUMS).write_text(sums(patch))
        try:
            artifact = open_artifact(patch)
            card(artifact.manifest)
            compare(artifact, sound)
            if (artifact.manifest.entries, artifact.manifest.rest) != whole_story or name == PATCH:
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
    rng = random.Random(20261125)
    artifact = open_artifact(patch)
    model = shutil.copytree(world / "student", tmp_path / "model")
    if name.endswith("index.json"):
        (model / "model.safetensors").rename(model / "one.safetensors")
        index = {"weight_map": dict.fromkeys(Checkpoint(world / "student").shapes, "one.safetensors")}
        (model / name).write_text(json.dumps(index))
    whole = (model / name).read_bytes()
    assert verify(artifact, model).state is State.CLEAN
    told = {State.CLEAN: 0, State.FOREIGN: 0}
    for _ in range(count):
        (model / name).write_bytes(mutated(whole, rng))
        try:
            told[verify(artifact, model).state] += 1
            apply(artifact, model, tmp_path / "out")
            shutil.rmtree(tmp_path / "out")
        except HarnessError:
            assert not (tmp_path / "out").exists()
    assert told[State.FOREIGN] or name != "model.safetensors"
    if name == "model.safetensors":  # a header's metadata may change, and nothing else
        assert told[State.CLEAN] < count / 100
