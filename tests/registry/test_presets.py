"""Check what a preset sets, what overrides it, and that the embedded families keep the settings that they had."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from safety_harness.errors import ConfigError
from safety_harness.registry.load import Student, load_registry
from safety_harness.registry.settings import PRESETS, GateSettings, Preset, SearchSettings
from safety_harness.registry.splits import load_questions
from tests.samples import TABLE, family, write_prompts, write_registry

# The defaults of the search before there were presets: recorded results and cached patches rest on them.
BEFORE: dict[str, Any] = {
    "target_share": 0.9, "target_dsr": None, "over_refusal": 0.05, "task": 0.05, "unscored": 0.05, "max_probes": 400,
    "strategy": "adaptive", "prior": "contrast", "prior_questions": None, "prior_harmless_questions": None,
    "grain": "channel", "max_share": 1.0, "together": "module", "transfer": "replace", "roles": None,
}  # fmt: skip
LARGE = {
    "target_share": 0.84, "over_refusal": 0.07, "max_share": 0.1, "together": "layer", "prior_questions": 64,
    "prior_harmless_questions": 128,
}  # fmt: skip
GROUPS: dict[str, tuple[dict[str, Any], int | None]] = {
    "tiny": ({"target_share": 0.98, "task": 0.04}, None),
    "smollm2": ({**LARGE, "prior": "descent"}, 12),
    "gemma3": ({**LARGE, "transfer": "add"}, 12),
    "paper": (LARGE, 16),
}
ADDING = {f"smollm2/{name}" for name in ("arithmetic", "french", "spanish", "identity")}


def read(folder: Path, body: str = "", table: str = TABLE, **options: object) -> Student:
    """Return the student of a registry whose family is *body*."""
    file = write_registry(folder, family("a", {"s": "pass"}, body), table=table)
    (student,) = load_registry(file, search=options).select()
    return student


@pytest.mark.parametrize("group", GROUPS)
def test_embedded_families_search_as_they_did(group: str) -> None:
    """Compare every student with the settings that it had before there were presets."""
    differing, screen = GROUPS[group]
    for student in load_registry().select(family=group):
        if student.search.attacks:
            continue  # younger than this record
        adds = {"transfer": "add"} if student.id in ADDING else {}
        search = student.search.model_dump(mode="json")
        younger = [search.pop(name) for name in ("attacks", "attacked_share", "kind_share", "rank")]
        assert younger == [[], 0.5, None, 8]
        # 0 says what None said: prior and oracle see all questions. The key of a patch has None for both.
        search |= {name: search[name] or None for name in ("prior_questions", "prior_harmless_questions")}
        assert search == {**BEFORE, **differing, **adds}, student.id
        assert (student.family.screen_tokens, student.gate) == (screen, GateSettings())


def test_without_a_preset_the_standard_holds(tmp_path: Path) -> None:
    """Read a registry without the key, and one that names the standard."""
    assert read(tmp_path).search == read(tmp_path, 'preset = "standard"').search == SearchSettings()
    assert read(tmp_path).family.screen_tokens == 16
    assert read(tmp_path, "max_new_tokens = 96").family.screen_tokens == 24


@pytest.mark.parametrize("preset", get_args(Preset))
def test_keys_and_options_override_a_preset(tmp_path: Path, preset: str) -> None:
    """Set a key in the defaults, one in the family and one as an option."""
    table = TABLE + f'preset = "{preset}"\nsearch = {{ task = 0.3, max_probes = 7 }}\n'
    student = read(tmp_path, "search = { max_probes = 8, strategy = 'ddmin' }\nscreen_tokens = 9", table, prior="norm")
    expected = {**PRESETS[preset], "task": 0.3, "max_probes": 8, "strategy": "ddmin", "prior": "norm"}
    assert student.search == SearchSettings(**expected)
    assert student.family.screen_tokens == 9


def test_a_students_own_search_is_on_top_of_the_preset(tmp_path: Path) -> None:
    """Give a student one setting of its own."""
    text = TABLE + '[families.a]\nteacher = "t"\npreset = "quick"\n[families.a.students.s]\npath = "x"\n'
    (tmp_path / "r.toml").write_text(text + "search = { max_probes = 3 }\n")
    (student,) = load_registry(tmp_path / "r.toml").select()
    assert student.search == SearchSettings(**{**PRESETS["quick"], "max_probes": 3})


@pytest.mark.parametrize("given", ['"fast"', "3", "[]", '["quick"]'])
def test_an_unknown_preset_is_refused(tmp_path: Path, given: str) -> None:
    """Name no preset."""
    with pytest.raises(ConfigError, match=r"families\.a\.preset: Input should be 'standard', 'thorough' or 'quick'"):
        read(tmp_path, f"preset = {given}")


def test_thorough_reads_every_answer_to_its_end(tmp_path: Path) -> None:
    """Read a family with and without a number of its own."""
    assert read(tmp_path, 'preset = "thorough"').family.screen_tokens is None
    assert read(tmp_path, 'preset = "thorough"\nscreen_tokens = 8').family.screen_tokens == 8


@pytest.mark.parametrize(("n", "body", "prior"), [
    (160, "", (64, 64)), (400, "", (64, 128)), (40, "", (16, 16)), (39, "", (39, 39)), (3, "", (3, 3)),
    (160, "search = { prior_questions = 0 }", (160, 64)), (160, "search = { prior_questions = 5 }", (5, 64)),
])  # fmt: skip
def test_the_prior_takes_its_share_of_many_questions(tmp_path: Path, n: int, body: str, prior: tuple[int, int]) -> None:
    """Split as many questions as there are; where they are few, prior and oracle see all."""
    student = read(tmp_path, body)
    for kind in ("harmful", "harmless"):
        write_prompts(tmp_path / f"{kind}.search.jsonl", [f"{kind} {number}" for number in range(n)])
    questions = load_questions(student)
    assert (len(questions.prior.harmful), len(questions.prior.harmless)) == prior
    asked = len(questions.harmful.search), len(questions.harmless.search)
    assert asked == tuple(n - taken if taken < n else n for taken in prior)
