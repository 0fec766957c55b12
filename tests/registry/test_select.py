"""Check which students a run is about, and which models each of them needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from safety_harness.errors import ConfigError
from safety_harness.registry.load import Registry, load_registry
from tests.samples import TABLE, family, write_registry

BOTH = {"one": "pass", "two": "pass"}


# --- Who is chosen ---------------------------------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Families alpha and beta of the group ``sample``, and gamma of no group; all have a student ``one``."""
    (tmp_path / "more").mkdir()
    sample = write_registry(tmp_path, family("alpha", BOTH), family("beta", {"one": "fail", "tri": "pass"}))
    table = TABLE.replace('group = "sample"', "")
    return load_registry(sample, write_registry(tmp_path / "more", family("gamma", {"one": "pass"}), table=table))


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ({}, ["alpha/one", "alpha/two", "beta/one", "beta/tri", "gamma/one"]),
        ({"family": "alpha"}, ["alpha/one", "alpha/two"]),
        ({"family": "sample"}, ["alpha/one", "alpha/two", "beta/one", "beta/tri"]),
        ({"students": ["one"]}, ["alpha/one", "beta/one", "gamma/one"]),
        ({"students": ["beta/tri", "alpha/one"]}, ["alpha/one", "beta/tri"]),
        ({"family": "sample", "students": ["one", "one"]}, ["alpha/one", "beta/one"]),
    ],
)
def test_selection_keeps_the_registrys_order(registry: Registry, wanted: dict[str, object], ids: list[str]) -> None:
    """Select by family, group, name and id."""
    assert [student.id for student in registry.select(**wanted)] == ids  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"family": "alhpa"}, "Unknown family 'alhpa'. Did you mean 'alpha'?"),
        ({"family": "samples"}, "Unknown family 'samples'. Did you mean 'sample'?"),
        ({"students": ["twoo"]}, "Unknown student 'twoo'. Did you mean 'alpha/two'?"),
        ({"students": ["beta/trii"]}, "Unknown student 'beta/trii'. Did you mean 'beta/tri'?"),
        ({"family": "alpha", "students": ["tri"]}, "Unknown student 'tri'. Known: alpha/one, alpha/two."),
        ({"teacher": "gama"}, "Unknown teacher 'gama'. Did you mean 'gamma'?"),
        ({"family": ""}, "Unknown family ''. Known: alpha, beta, gamma, sample."),
    ],
)
def test_an_unknown_name_gets_a_suggestion(registry: Registry, wanted: dict[str, object], message: str) -> None:
    """Misspell families, students and teachers."""
    with pytest.raises(ConfigError) as caught:
        registry.select(**wanted)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)


def test_another_familys_teacher_takes_the_place_of_ones_own(registry: Registry) -> None:
    """Select a student with the teacher of another family."""
    (student,) = registry.select(students=["alpha/two"], teacher="beta")
    assert student.id == "alpha/two"
    assert student.family.teacher.hf == "sample/beta-teacher"
    assert registry.families["alpha"].teacher.hf == "sample/alpha-teacher"


def test_an_expected_failure_is_the_students_own(registry: Registry) -> None:
    """Check both expectations."""
    assert [student.spec.expected for student in registry.select(family="beta")] == ["fail", "pass"]


# --- What is tuned from an ancestor ------------------------------------------------------------


def test_what_names_adapters_alone_is_the_ancestor_with_them(tmp_path: Path) -> None:
    """Check a teacher and a student without a source, and a student with one."""
    text = f"""{TABLE}
[families.a.ancestor]
hf = "some/model"
revision = "v1"
chat_template = "chat.jinja"
[families.a.teacher]
adapters = ["lora/teacher"]
[families.a.students.tuned]
adapters = ["lora/tuned"]
[families.a.students.other]
path = "other"
adapters = ["lora/other"]
"""
    (tmp_path / "registry.toml").write_text(text)
    tuned, other = load_registry(tmp_path / "registry.toml").select()
    teacher = tuned.family.teacher
    assert (teacher.hf, teacher.revision, teacher.adapters) == ("some/model", "v1", (tmp_path / "lora/teacher",))
    assert (tuned.spec.hf, tuned.spec.revision, tuned.spec.adapters) == ("some/model", "v1", (tmp_path / "lora/tuned",))
    assert (other.spec.hf, other.spec.path) == (None, tmp_path / "other")
    assert tuned.spec.chat_template == teacher.chat_template == tmp_path / "chat.jinja"
    assert other.spec.chat_template is None


def test_adapters_come_after_those_of_the_ancestor(tmp_path: Path) -> None:
    """Check the order in which adapters are merged."""
    text = f"""{TABLE}
[families.a.ancestor]
hf = "some/model"
adapters = ["lora/chat"]
[families.a.teacher]
adapters = ["lora/teacher"]
[families.a.students.tuned]
adapters = ["lora/tuned"]
"""
    (tmp_path / "registry.toml").write_text(text)
    (tuned,) = load_registry(tmp_path / "registry.toml").select()
    assert tuned.spec.adapters == (tmp_path / "lora/chat", tmp_path / "lora/tuned")
    assert tuned.family.teacher.adapters == (tmp_path / "lora/chat", tmp_path / "lora/teacher")


def test_an_ancestor_may_be_a_folder_in_short(tmp_path: Path) -> None:
    """Name the ancestor by its path alone."""
    text = f"""{TABLE}
[families.a]
ancestor = "base"
teacher = {{ adapters = ["lora/teacher"] }}
students.tuned = {{ adapters = ["lora/tuned"] }}
"""
    (tmp_path / "registry.toml").write_text(text)
    (tuned,) = load_registry(tmp_path / "registry.toml").select()
    assert tuned.family.ancestor is not None
    assert {spec.path for spec in (tuned.spec, tuned.family.teacher, tuned.family.ancestor)} == {tmp_path / "base"}


def test_adding_to_a_student_needs_the_ancestor(tmp_path: Path) -> None:
    """Check the models of a student with and without an ancestor."""
    file = write_registry(tmp_path, family("a", BOTH), family("b", BOTH, 'ancestor = "base"'))
    adding = load_registry(file, search={"transfer": "add"})
    (one, _) = adding.select(family="b")
    assert one.family.ancestor is not None
    assert one.models == (one.family.teacher, one.family.ancestor, one.spec)
    with pytest.raises(ConfigError, match=r"Family 'a' is to add .* names no `ancestor`"):
        adding.select()
    replacing = load_registry(file).select(family="b")[0]
    assert replacing.models == (replacing.family.teacher, replacing.spec)


# --- Without a teacher -----------------------------------------------------------------------------------------------


def test_a_family_may_have_no_teacher(tmp_path: Path) -> None:
    """Expect the student to need itself alone, also with an ancestor and the settings of a search."""
    more = 'ancestor = "base"\nsearch = { transfer = "add" }'
    file = write_registry(tmp_path, family("a", BOTH, more, teacher=False), family("b", BOTH))
    one, _, other, _ = load_registry(file).select()
    assert (one.patchable, one.models) == (False, (one.spec,))
    with pytest.raises(ConfigError, match=r"a/one: its family names no teacher, .*\[families.a\]"):
        one.require_teacher()
    assert other.patchable
    with pytest.raises(ConfigError, match="The family 'a' names no teacher that"):
        load_registry(file).select(students=["b/one"], teacher="a")
    (given, _) = load_registry(file, search={"transfer": "replace"}).select(family="a", teacher="b")
    assert given.require_teacher().hf == "sample/b-teacher"
