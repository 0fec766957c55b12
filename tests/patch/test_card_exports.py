"""What other tools read of a patch: model-index in the card, the ML-BOM, and what a released model carries."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from safety_harness.cli.main import main
from safety_harness.gate.limits import NOT_SHOWN, not_shown
from safety_harness.gate.numbers import Attacked
from safety_harness.gate.results import Outcome
from safety_harness.gate.thresholds import SOURCE
from safety_harness.patch.apply import State, apply, revert, verify
from safety_harness.patch.card import card
from safety_harness.patch.folder import open_artifact
from safety_harness.patch.manifest import Manifest, Measured
from safety_harness.patch.mlbom import ml_bom
from safety_harness.patch.release import CARRIED
from safety_harness.registry.settings import GateSettings
from tests.artifacts import Made, files, make_artifact
from tests.report.hostile import HOSTILE
from tests.samples import JUDGE, sample_checks

SETS = {"harmful.report": "a" * 64, "harmless.report": "b" * 64, "task.report": "c" * 64, "text": "d" * 64}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, questions: Path) -> Made:
    return make_artifact(tmp_path_factory.mktemp("carried"), questions, keep_original=True)


def gated(manifest: Manifest, refused: int = 119, **provenance: Any) -> Manifest:
    """Return *manifest* with the evidence of a gate in which *refused* of 128 harmful questions were refused."""
    measured = {
        check.name: {"outcome": check.outcome, "summary": check.summary, "numbers": check.numbers.model_dump()}
        for check in sample_checks(refused, 2)
    }
    outcomes = [check["outcome"] for check in measured.values()]
    table = json.loads(manifest.model_dump_json())
    table["gate"] = {
        "outcome": "fail" if "fail" in outcomes else "pass", "reasons": ["too few"] if "fail" in outcomes else [],
        "checks": measured, "thresholds": GateSettings().model_dump(), "teacher": {}, "further": {},
        "judge": JUDGE.model_dump(), "provenance": provenance,
    }  # fmt: skip
    table["identity"]["questions"] = SETS
    return Manifest.model_validate_json(json.dumps(table))


# --- model-index ------------------------------------------------------------------------------------------------------


def test_a_hub_reads_every_metric_of_the_card(made: Made) -> None:
    """Read the card with huggingface_hub: each rate with its counts, its interval and the hash of its questions."""
    parsed = ModelCard(card(gated(made.artifact.manifest)))
    results = {one.metric_type: one for one in parsed.data.eval_results or ()}
    assert parsed.data.model_name == f"{made.artifact.manifest.search.student}, patched (gate: PASS)"
    assert set(results) == {
        "defense-success-rate", "over-refusal-rate", "accuracy", "perplexity", "kl-divergence",
    }  # fmt: skip
    dsr = results["defense-success-rate"]
    assert (dsr.metric_value, dsr.metric_name) == (pytest.approx(119 / 128, abs=1e-6), "DSR, 119 of 128")
    assert dsr.metric_args["interval"] == pytest.approx([0.871, 0.963], abs=2e-3)
    assert (dsr.dataset_name, dsr.dataset_revision) == ("harmful.report", "a" * 64)
    assert (dsr.task_type, dsr.task_name) == ("text-generation", "refuses harmful questions")
    assert results["over-refusal-rate"].metric_name == "over-refusal, 2 of 128"
    assert results["accuracy"].metric_value == 1.0
    assert results["perplexity"].dataset_revision == "d" * 64


def test_a_failed_patch_says_so_where_a_hub_shows_it(made: Made) -> None:
    parsed = ModelCard(card(gated(made.artifact.manifest, refused=9)))
    assert str(parsed.data.model_name).endswith("patched (gate: FAIL)")


def test_a_patch_that_no_gate_has_seen_has_no_metrics(made: Made) -> None:
    text = card(made.artifact.manifest)
    assert "model-index" not in text
    assert ModelCard(text).data.eval_results is None
    assert "no gate has seen this patch" in text
    assert "performanceMetrics" in ml_bom(made.artifact.manifest)


def test_the_card_says_what_the_gate_does_not_show_and_what_was_changed(made: Made) -> None:
    text = card(gated(made.artifact.manifest, **{SOURCE: "results.json, sha256 f00"}))
    assert all(line in text for line in NOT_SHOWN)
    assert "Thresholds were changed after the run: results.json, sha256 f00" in text
    assert "Thresholds were changed" not in card(gated(made.artifact.manifest))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_values_of_the_front_matter(made: Made, text: str) -> None:
    """Expect no name of a student to end the front matter, or to add a key to it."""
    manifest = gated(made.artifact.manifest)
    patch = manifest.search.model_copy(update={"student": f"{text}\n---\nlicense: mit"})
    parsed = ModelCard(card(manifest.model_copy(update={"search": patch})))
    assert len(parsed.data.eval_results or ()) == 5
    assert parsed.data.license is None


# --- ML-BOM -----------------------------------------------------------------------------------------------------------


def test_the_bill_is_valid_cyclonedx(made: Made) -> None:
    """Validate against the published schema of CycloneDX 1.6, which its own library brings."""
    pytest.importorskip("cyclonedx.schema", reason="needs cyclonedx-python-lib[json-validation]")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion.V1_6)
    for manifest in (made.artifact.manifest, gated(made.artifact.manifest), gated(made.artifact.manifest, refused=9)):
        assert validator.validate_str(ml_bom(manifest)) is None
    assert validator.validate_str(ml_bom(manifest).replace("machine-learning-model", "oracle")) is not None


def test_the_bill_names_models_files_and_metrics(made: Made) -> None:
    bill = json.loads(ml_bom(gated(made.artifact.manifest, refused=9)))
    patched = bill["metadata"]["component"]
    assert (patched["type"], patched["version"]) == ("machine-learning-model", made.artifact.manifest.search.key)
    card_of = patched["modelCard"]
    metrics = {one["type"]: one for one in card_of["quantitativeAnalysis"]["performanceMetrics"]}
    assert metrics["DSR, 9 of 128"]["value"] == f"{9 / 128:.6g}"
    assert float(metrics["DSR, 9 of 128"]["confidenceInterval"]["upperBound"]) == pytest.approx(0.128, abs=2e-3)
    assert card_of["considerations"]["technicalLimitations"] == list(NOT_SHOWN)
    assert {"name": "safety-harness:gate", "value": "fail"} in patched["properties"]
    student, teacher = bill["components"]
    assert {one["name"]: one["hashes"][0]["content"] for one in student["components"]} == dict(
        made.artifact.manifest.student.files
    )
    assert bill["dependencies"] == [{"ref": "patched", "dependsOn": [student["bom-ref"], teacher["bom-ref"]]}]
    assert ml_bom(made.artifact.manifest) == ml_bom(made.artifact.manifest)


def test_the_command_prints_what_lies_in_the_folder(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", str(made.artifact.folder), "--bom"]) == 0
    assert capsys.readouterr().out == (made.artifact.folder / "ml-bom.cdx.json").read_text()


# --- What a released model carries ------------------------------------------------------------------------------------


def test_a_released_model_carries_manifest_card_and_bill(made: Made, tmp_path: Path) -> None:
    """Expect the patch's own files in a folder of their own, none of them in a reverted copy, and no card replaced."""
    out, again = tmp_path / "released", tmp_path / "again"
    apply(made.artifact, made.student, out)
    carried = {path.name: path.read_bytes() for path in (out / CARRIED).iterdir()}
    assert carried == {
        name: (made.artifact.folder / name).read_bytes() for name in ("manifest.json", "README.md", "ml-bom.cdx.json")
    }
    assert {*files(out)} - {*files(made.student)} == {f"{CARRIED}/{name}" for name in carried}
    assert verify(made.artifact, out).state is State.APPLIED
    assert verify(made.artifact, out).beside == ()
    assert CARRIED in revert(made.artifact, out, again)
    assert files(again) == files(made.student)


def test_a_card_that_somebody_changed_is_not_carried(made: Made, tmp_path: Path) -> None:
    """Expect the patch to be applied all the same, without what SHA256SUMS does not vouch for."""
    folder = tmp_path / "patch"
    shutil.copytree(made.artifact.folder, folder)
    (folder / "README.md").write_text("Safe for everything.")
    (folder / "ml-bom.cdx.json").unlink()  # as a patch of an earlier version
    apply(open_artifact(folder), made.student, tmp_path / "released")
    assert [path.name for path in (tmp_path / "released" / CARRIED).iterdir()] == ["manifest.json"]


def test_what_an_attacked_gate_does_not_show_is_less(made: Made) -> None:
    """Name other attacks as what is not shown, where the gate asked under some."""
    manifest = gated(made.artifact.manifest)
    assert manifest.gate is not None
    asked = Measured(outcome=Outcome.PASS, summary="", numbers=Attacked(attacks=["persona"]))
    checks = {**manifest.gate.checks, "attacked": asked}
    attacked = manifest.model_copy(update={"gate": manifest.gate.model_copy(update={"checks": checks})})
    assert attacked.not_shown == not_shown(under_attack=True) != manifest.not_shown == NOT_SHOWN
    text = card(attacked)
    assert all(line in text for line in attacked.not_shown)
