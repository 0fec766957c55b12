"""What is written as an artifact: of this patch, with the evidence of its own gate."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from safety_harness.errors import ArtifactError
from safety_harness.gate.incidents import Incident
from safety_harness.gate.reading import read_results
from safety_harness.gate.redecide import redecide
from safety_harness.gate.results import Outcome
from safety_harness.patch.folder import CARD
from safety_harness.search.write_patch import _licence, build
from tests.artifacts import Made, patch_of, some_units
from tests.samples import results_with


def test_evidence_of_other_units_is_refused(made: Callable[..., Made], tmp_path: Path) -> None:
    """Expect an error: on another processor a search of the same key may find other units."""
    evaluator = made().evaluator
    units = some_units(evaluator, 1)
    about = {"patch": patch_of(evaluator, units[1:]).model_dump(mode="json"), "identity": evaluator.identity()}
    results = results_with(tmp_path / "results.json", {evaluator.student.id: about})
    with pytest.raises(ArtifactError, match=r"is no evidence for this patch: it records another patch"):
        build(evaluator, patch_of(evaluator, units), tmp_path / "gated", results=results)
    assert not (tmp_path / "gated").exists()
    assert (
        build(evaluator, patch_of(evaluator, units[1:]), tmp_path / "gated", results=results).manifest.gate is not None
    )


@pytest.mark.parametrize("other", ["student", "teacher", "ancestor", "dtype"])
def test_evidence_of_other_numbers_is_refused(made: Callable[..., Made], tmp_path: Path, other: str) -> None:
    evaluator = made().evaluator
    patch = patch_of(evaluator, some_units(evaluator, 1))
    about = {"patch": patch.model_dump(mode="json"), "identity": evaluator.identity() | {other: "another"}}
    results = results_with(tmp_path / "results.json", {evaluator.student.id: about})
    with pytest.raises(ArtifactError, match=rf"was gated with another {other} than today's\. Gate this patch"):
        build(evaluator, patch, tmp_path / "gated", results=results)
    assert not (tmp_path / "gated").exists()


def test_a_card_says_that_thresholds_are_loose_or_were_changed(made: Callable[..., Made], tmp_path: Path) -> None:
    """Decide a run of a student that refuses too little again, until it passes."""
    evaluator = made().evaluator
    patch = patch_of(evaluator, some_units(evaluator, 1))
    about = {"patch": patch.model_dump(mode="json"), "identity": evaluator.identity()}
    results = results_with(tmp_path / "results.json", {evaluator.student.id: about}, refused=90)
    run = redecide(read_results(results), {"dsr": 0.5}, "results.json")
    results.write_text(run.to_json(), encoding="utf-8")
    artifact = build(evaluator, patch, tmp_path / "gated", results=results)
    card = (artifact.folder / CARD).read_text(encoding="utf-8")
    assert "**PASS**: Thresholds were changed after the run, and nothing was asked again." in card
    assert "By its own thresholds the run was FAIL." in card
    assert "Looser than the default." in card


def test_evidence_of_a_disturbed_run_is_inconclusive(made: Callable[..., Made], tmp_path: Path) -> None:
    """Break a test of the student: its checks passed, and yet the run was not green because of it."""
    evaluator = made().evaluator
    patch = patch_of(evaluator, some_units(evaluator, 1))
    about = {"patch": patch.model_dump(mode="json"), "identity": evaluator.identity()}
    results = results_with(tmp_path / "results.json", {evaluator.student.id: about})
    broken = Incident("broken_test", ("t",), (evaluator.student.id,), "no disk")
    run = replace(read_results(results), incomplete=(broken,), outcome=Outcome.INCONCLUSIVE)
    results.write_text(run.to_json(), encoding="utf-8")
    gate = build(evaluator, patch, tmp_path / "gated", results=results).manifest.gate
    assert gate is not None
    assert (gate.outcome, gate.reasons) == (Outcome.INCONCLUSIVE, ("t could not be measured: no disk",))


def test_an_empty_patch_makes_no_artifact(made: Callable[..., Made], tmp_path: Path) -> None:
    evaluator = made().evaluator
    with pytest.raises(ArtifactError, match="the patch is empty: all of the teacher is not enough"):
        build(
            evaluator,
            patch_of(evaluator, (), found=False, reason="all of the teacher is not enough"),
            tmp_path / "none",
        )
    assert not (tmp_path / "none").exists()


def test_a_patch_is_written_without_the_extras(
    made: Callable[..., Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write an artifact where peft is not installed: the manifest records the packages that are there."""
    evaluator, version = made().evaluator, metadata.version

    def without_peft(name: str) -> str:
        if name == "peft":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", without_peft)
    artifact = build(evaluator, patch_of(evaluator, some_units(evaluator, 1)), tmp_path / "small")
    assert artifact.manifest.environment["torch"] == version("torch")
    assert "peft" not in artifact.manifest.environment


def bomb(form: str, first: str) -> str:
    """Return YAML each line of which stands for nine times the line before."""
    lines = [f"a: &a {first}\n"]
    for before, name in itertools.pairwise("abcdefghijk"):
        lines.append(f"{name}: &{name} {form.format(', '.join([f'*{before}'] * 9))}\n")
    return "".join(lines)


@pytest.mark.parametrize(
    ("front", "licence"),
    [
        ("license: mit", "mit"),
        ("license: mit\ndate: 2024-99-99\nsize: 9e9999999", "mit"),
        ("license: [mit]", None),
        ("license:", None),
        ("license: {", None),
        ("license: " + "[" * 20_000, None),
        (bomb("{{<<: [{}]}}", "{x: 1}") + "license: mit", "mit"),
        (bomb("[{}]", "[x]") + "license: *k", None),
    ],
)  # fmt: skip
def test_a_cards_licence_is_a_text_of_its_front_matter(tmp_path: Path, front: str, licence: str | None) -> None:
    """Read front matter that other readers of YAML would take for dates, for numbers, or for billions of values."""
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\nText\n")
    assert _licence(tmp_path / "README.md") == licence
