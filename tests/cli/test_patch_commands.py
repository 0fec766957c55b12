"""Check the way from a search to a released model, as a release engineer types it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from safety_harness.patch.folder import MANIFEST, open_artifact
from tests.cli.conftest import Command
from tests.fake_hub import Hub
from tests.samples import about, results_with

FILES = {"manifest.json", "patch.safetensors", "README.md", "ml-bom.cdx.json", "SHA256SUMS"}


def test_from_search_to_release_and_back(command: Command, registry: Path, world: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "patch", tmp_path / "released"
    code, printed, _ = command(
        "search", "--student", "plain", "--registry", registry, "--out", folder, "--with-original"
    )
    assert code == 0
    assert re.fullmatch(rf"{folder}: world/plain, \d+\.\d\d% of the parameters, not gated\n", printed)
    student = world / "student"
    assert command("verify", folder, student)[:2] == (1, f"{student}: clean\n")
    assert command("verify", folder, student, "--expect", "clean")[0] == 0
    code, printed, _ = command("apply", folder, student, "--dry-run")
    assert code == 0
    assert re.fullmatch(rf"{student}: clean; \d+ parameters would change\n", printed)
    assert command("apply", folder, student, "--out", out)[:2] == (0, f"{out}: written and read back\n")
    assert command("verify", folder, out)[:2] == (0, f"{out}: applied\n")
    assert command("apply", folder, student, "--out", out)[:2] == (
        0,
        f"{out}: already holds this patch. Nothing was written\n",
    )
    assert command("apply", folder, out, "--dry-run")[0] == 1
    assert command("revert", folder, out, "--dry-run")[:2] == (0, f"{out}: applied\n")
    assert command("revert", folder, out, "--dry-run", "--out", student)[0] == 2
    assert command("apply", folder, student, "--dry-run", "--out", out)[0] == 0  # which holds it already
    assert command("apply", folder, student, "--dry-run", "--out", folder)[0] == 2
    assert command("revert", folder, out, "--out", tmp_path / "again")[0] == 0
    for file in student.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
    (out / "generation_config.json").write_text("{}")
    assert command("verify", folder, out)[:2] == (
        1,
        f"{out}: applied\nnot what the gate saw: generation_config.json\n",
    )
    assert command("verify", folder, out, "--weights-only")[0] == 0
    shutil.copyfile(student / "generation_config.json", out / "generation_config.json")
    assert json.loads(command("verify", folder, out, "--json")[1]) == {
        "model": str(out), "state": "applied", "foreign": "", "unapplied": [], "beside": [],
    }  # fmt: skip


def test_the_manifest_keeps_to_its_published_schema(command: Command, patch: Path) -> None:
    code, printed, _ = command("card", "--schema")
    assert code == 0
    jsonschema.validate(json.loads((patch / MANIFEST).read_text()), json.loads(printed))
    published = Path(__file__).parents[2] / "docs" / "manifest.schema.json"
    assert published.read_text() == printed, "write it again: safety-harness card --schema > docs/manifest.schema.json"


def test_the_manifest_names_the_weights_and_the_search(patch: Path, world: Path) -> None:
    manifest = open_artifact(patch).manifest
    assert (manifest.student.source, manifest.teacher.source) == ("student", "good")
    assert manifest.teacher.licence == "llama2"
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= manifest.student.files.keys()
    assert manifest.search.minimal
    assert set(manifest.search.certificate.values()) == {"tested"}
    assert manifest.identity.batch_size == 16
    assert manifest.gate is None
    assert str(world) not in (patch / MANIFEST).read_text()  # where models lie on this machine is private


def gated(patch: Path, results: Path, student: str = "world/plain", **facts: object) -> Path:
    """Write a run that gated *patch* on another device, with other *facts* of it. Return the file, *results*."""
    manifest = open_artifact(patch).manifest
    identity = {**manifest.identity.model_dump(), "device": "elsewhere"}
    recorded = about(patch={**manifest.search.model_dump(mode="json"), **facts}, identity=identity)
    return results_with(results, {student: recorded.model_dump(mode="json")}, refused=120)


def test_the_gates_patch_and_evidence_go_along(
    command: Command, registry: Path, patch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = gated(patch, tmp_path / "results.json")
    monkeypatch.setenv("SAFETY_HARNESS_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("safety_harness.search.find.search", lambda *_: pytest.fail("a search"))
    out = tmp_path / "gated"
    code, printed, _ = command("patch", results, "--student", "plain", "--registry", registry, "--out", out, "--json")
    assert code == 0
    assert json.loads(printed)["gate"] == "pass"
    manifest = open_artifact(out).manifest
    assert manifest.entries == open_artifact(patch).manifest.entries
    assert manifest.identity.device == "elsewhere"
    gate = manifest.gate
    assert gate is not None
    assert gate.checks["defense"].numbers["after"] == 120
    assert "flips" not in gate.checks["defense"].numbers
    code, printed, _ = command("card", out)
    assert code == 0
    assert printed == (out / "README.md").read_text()
    sentences = (
        "**PASS**",
        "with the 95 % interval: 0/128 (0.00–0.03) before, 120/128",
        "other (harmful, recorded and not gated): 3 → 150 of 200 refused.",
        "llama2",
    )
    for sentence in sentences:
        assert sentence in printed


def test_a_patch_of_a_run_with_other_options_is_written(command: Command, registry: Path, tmp_path: Path) -> None:
    """Search by four components of each matrix, and write that patch by a registry that says channels."""
    other = tmp_path / "components.toml"
    text = registry.read_text()
    other.write_text(text.replace("search = { ", 'search = { grain = "component", rank = 4, ', 1))
    assert other.read_text() != text
    searched, out = tmp_path / "searched", tmp_path / "written"
    assert command("search", "--student", "plain", "--registry", other, "--out", searched)[0] == 0
    results = gated(searched, tmp_path / "results.json")
    code, _, error = command("patch", results, "--student", "plain", "--registry", registry, "--out", out)
    assert (code, error) == (0, "")
    assert open_artifact(out).manifest.entries == open_artifact(searched).manifest.entries
    assert open_artifact(out).manifest.search.units[0].partition("[")[0].endswith("~4")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"student": "world/other"}, "records no patch of world/plain"),
        ({"transfer": "add"}, "was found with transfer 'add'"),
        ({"transfer": "other"}, "world/plain: its patch was searched with settings that do not exist"),
        ({"units": ["9.gate"]}, "'9.gate' is no unit of this model"),
    ],
)
def test_what_is_no_patch_of_this_student_is_refused(
    command: Command, registry: Path, patch: Path, tmp_path: Path, facts: dict[str, Any], message: str
) -> None:
    results = gated(patch, tmp_path / "results.json", **facts)
    out = tmp_path / "gated"
    code, _, error = command("patch", results, "--student", "plain", "--registry", registry, "--out", out)
    assert code == 2
    assert message in error
    assert not out.exists()
    assert patch.exists()


def test_a_card_without_evidence_says_so(command: Command, patch: Path) -> None:
    printed = command("card", patch)[1]
    assert "**Nothing: no gate has seen this patch.**" in printed
    assert printed.startswith("---\nlibrary_name: transformers\n")
    assert 'license: "llama2"' in printed


def test_no_patch_is_exit_1(command: Command, registry: Path, tmp_path: Path) -> None:
    """Take the teacher itself as the student: it refuses enough."""
    code, printed, _ = command("search", "--student", "taught", "--registry", registry, "--out", tmp_path / "none")
    assert code == 1
    assert printed.startswith("world/taught: no patch is written: the student refuses enough as it is")
    assert not (tmp_path / "none").exists()


def test_a_second_search_finds_the_same_patch(command: Command, registry: Path, patch: Path, tmp_path: Path) -> None:
    assert command("search", "--student", "plain", "--registry", registry, "--out", tmp_path / "same")[0] == 0
    code, printed, _ = command("diff", patch, tmp_path / "same")
    assert code == 0
    assert re.fullmatch(r"(\d+) of \1 tensors are moved alike\n", printed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("verify", "{tmp}/none", "{student}"), "no such folder"),
        (("verify", "{patch}", "{tmp}/none"), "no such model folder"),
        (("verify", "{student}", "{student}"), "SHA256SUMS: missing, so its folder is no patch"),
        (("apply", "{patch}", "{student}"), "--out is missing"),
        (("apply", "{patch}", "{student}", "--out", "{student}"), "which is never changed. Choose another --out"),
        (("apply", "{patch}", "{student}", "--out", "{tmp}"), "exists. Choose another place"),
        (("apply", "{patch}", "{tmp}/none", "--out", "{tmp}/x"), "no such model folder"),
        (("search", "--student", "plain", "--registry", "{registry}", "--out", "{tmp}"), "exists"),
        (("revert", "{patch}", "{student}", "--out", "{tmp}/x"), "does not hold this patch"),
        (("export", "{patch}", "{student}", "--to", "mergekit", "--out", "{tmp}/x"), "--teacher is missing"),
        (("card",), "Name a patch"),
        (("search", "--student", "plian", "--registry", "{registry}", "--out", "{tmp}/x"), "Did you mean"),
    ],
)
def test_wrong_input_is_exit_2_and_names_what_is_wrong(
    command: Command, registry: Path, patch: Path, world: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    places = {"tmp": tmp_path, "patch": patch, "student": world / "student", "registry": registry}
    code, _, error = command(*(argument.format(**places) for argument in arguments))
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


def test_a_dry_run_checks_where_the_original_would_come_from(
    command: Command, patch: Path, world: Path, tmp_path: Path
) -> None:
    student, out = world / "student", tmp_path / "released"
    assert command("apply", patch, student, "--out", out)[0] == 0
    code, _, error = command("revert", patch, out, "--dry-run")
    assert (code, "Name the student's folder with --student" in error) == (2, True)
    assert command("revert", patch, out, "--dry-run", "--student", student)[0] == 0


def test_an_export_in_full_holds_the_patch(command: Command, patch: Path, world: Path, tmp_path: Path) -> None:
    student = world / "student"
    assert command("export", patch, student, "--to", "full", "--out", tmp_path / "full")[0] == 0
    assert command("verify", patch, tmp_path / "full")[0] == 0


def test_a_patch_goes_to_a_hub_and_comes_back_whole(command: Command, patch: Path, hub: Hub, tmp_path: Path) -> None:
    (patch / "notes.txt").write_text("nobody's business")
    code, printed, _ = command("upload", patch, "org/patch", "--json")
    assert code == 0
    commit = json.loads(printed)["commit"]
    assert commit.startswith(f"{hub.url}/org/patch/commit/")
    assert hub.visibility == {"org/patch": "private"}
    files = hub.commit("org/patch", commit.rpartition("/")[2]).files
    assert files.keys() == FILES
    back = tmp_path / "back"
    back.mkdir()
    for name, content in files.items():
        (back / name).write_bytes(content)
    assert open_artifact(back).manifest == open_artifact(patch).manifest


def test_upload_removes_the_original_of_an_earlier_patch(command: Command, patch: Path, hub: Hub) -> None:
    hub.add("org/patch", {"original.safetensors": b"of an earlier one", "LICENSE": b"stays"})
    assert command("upload", patch, "org/patch")[0] == 0
    files = hub.commit("org/patch", "main").files
    assert files.keys() == FILES | {"LICENSE"}


def test_a_hub_that_refuses_is_an_error(command: Command, patch: Path, hub: Hub) -> None:
    hub.gated.add("org/mine")
    for name, why in (("org/mine", "the hub did not take it"), ("no name", "a repository's name on a hub is")):
        code, _, error = command("upload", patch, name)
        assert code == 2
        assert f"{name}: {why}" in error


def test_applying_a_patch_needs_no_torch(patch: Path, world: Path, tmp_path: Path) -> None:
    """Apply in a process of its own: a release job has no reason to install torch."""
    program = (
        "import sys; from safety_harness.cli.main import main; code = main(sys.argv[1:])\n"
        "print(*({'torch', 'transformers', 'scipy'} & sys.modules.keys())); sys.exit(code)"
    )
    process = [sys.executable, "-c", program, "apply", patch, world / "student", "--out", tmp_path / "out"]
    done = subprocess.run(process, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{tmp_path / 'out'}: written and read back", ""]
