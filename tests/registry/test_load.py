"""Registry files: what they may say, what is refused and how, and which students a run is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from safety_harness.errors import ConfigError
from safety_harness.registry.load import Registry, load_registry
from safety_harness.registry.schema import Source
from tests.samples import TABLE, family, write_registry

BOTH = {"one": "pass", "two": "pass"}


def load(folder: Path, *families: str, table: str = TABLE) -> Registry:
    return load_registry(write_registry(folder, *families, table=table))


def faults(folder: Path, text: str) -> str:
    """The message for a registry file that holds *text*."""
    (folder / "registry.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_registry(folder / "registry.toml")
    return str(caught.value)


def with_student(body: str) -> str:
    return f'{TABLE}\n[families.a]\nteacher = "teacher"\n[families.a.students.s]\n{body}\n'


def with_task(report: str) -> str:
    return with_student(f'path = "x"\ntask = {{ search = "t.jsonl", report = {{ {report} }} }}')


# --- What is read ----------------------------------------------------------------------------------------------------


def test_defaults_hold_for_every_family_and_a_family_may_differ(tmp_path: Path) -> None:
    found = load(tmp_path, family("a", BOTH, "batch_size = 8"), family("b", BOTH), table=TABLE + "batch_size = 32\n")
    assert [entry.batch_size for entry in found.families.values()] == [8, 32]


def test_thresholds_of_a_family_are_added_to_the_defaults(tmp_path: Path) -> None:
    table = TABLE + "gate = { dsr = 0.7, task = 0.3 }\nsearch = { max_probes = 9 }\n"
    found = load(tmp_path, family("a", BOTH, "gate = { dsr = 0.9 }\nsearch = { prior = 'norm' }"), table=table)
    assert (found.families["a"].gate.dsr, found.families["a"].gate.task) == (0.9, 0.3)
    assert (found.families["a"].search.max_probes, found.families["a"].search.prior) == (9, "norm")


def test_options_override_thresholds_of_the_file(tmp_path: Path) -> None:
    file = write_registry(tmp_path, family("a", BOTH, "gate = { dsr = 0.7 }\nsearch = { max_probes = 9 }"))
    found = load_registry(file, gate={"dsr": 0.5}, search={"max_probes": 3}).families["a"]
    assert (found.gate.dsr, found.gate.task, found.search.max_probes) == (0.5, 0.10, 3)


def test_a_student_may_search_otherwise_and_an_option_wins_over_both(tmp_path: Path) -> None:
    text = with_student('path = "x"\nsearch = { task = 0.3, max_probes = 7 }')
    text += '[families.a.students.t]\npath = "y"\n[families.a.search]\nmax_probes = 9\nprior = "norm"\n'
    (tmp_path / "registry.toml").write_text(text)
    students = load_registry(tmp_path / "registry.toml").select()
    special, plain = (student.search for student in students)
    assert (special.task, special.max_probes, special.prior) == (0.3, 7, "norm")
    assert (plain.task, plain.max_probes, plain.prior) == (0.05, 9, "norm")
    assert [student.family.search for student in students] == [plain, plain]
    assert [student.gate for student in students] == [student.family.gate for student in students]
    given = load_registry(tmp_path / "registry.toml", search={"max_probes": 3}).select()
    assert [(student.search.task, student.search.max_probes) for student in given] == [(0.3, 3), (0.05, 3)]


@pytest.mark.parametrize(
    ("search", "message"),
    [("4", "families.a.students.s.search: must be a table, not 4"), ("{ probes = 4 }", "students.s.search.probes")],
)
def test_a_students_search_is_checked_as_the_familys(tmp_path: Path, search: str, message: str) -> None:
    assert message in faults(tmp_path, with_student(f'path = "x"\nsearch = {search}'))


def test_relative_paths_start_at_the_registry_file(tmp_path: Path) -> None:
    body = 'path = "models/s"\nadapters = ["lora/one", "/else/two"]\ntask = { search = "t.jsonl", report = "r.jsonl" }'
    (tmp_path / "registry.toml").write_text(with_student(body))
    (student,) = load_registry(tmp_path / "registry.toml").select()
    assert student.spec.path == tmp_path / "models/s"
    assert student.spec.adapters == (tmp_path / "lora/one", Path("/else/two"))
    assert student.spec.task is not None
    assert student.spec.task.report.path == tmp_path / "r.jsonl"
    assert student.family.teacher.path == tmp_path / "teacher"
    assert student.family.harmful.search.path == tmp_path / "harmful.search.jsonl"


def test_the_only_list_of_a_prompt_source_is_a_path_too(tmp_path: Path) -> None:
    table = TABLE.replace('text = "text.jsonl"', 'text = { path = "text.jsonl", only = "t.sha256", limit = 5 }')
    text = load(tmp_path, table=table).families["alpha"].text
    assert (text.only, text.limit) == (tmp_path / "t.sha256", 5)


def test_embedded_families_load_with_the_seventeen_tiny_students() -> None:
    tiny = load_registry().select(family="tiny")
    assert len({student.id for student in tiny}) == 17
    assert [name for name in load_registry().families if name.startswith("tiny")] == [
        "tiny-llama",
        "tiny-mistral",
        "tiny-gemma",
    ]


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (Source(path=Path("a/b")), "path:a/b"),
        (Source(hf="org/model", revision="v1"), "hf:org/model@v1"),
        (Source(pypi="thing==1.0", file="x/y.gguf", sha256="0" * 64), "pypi:thing==1.0/x/y.gguf"),
    ],
)
def test_a_source_shows_its_kind_and_place(source: Source, shown: str) -> None:
    assert str(source) == shown


# --- What is refused -------------------------------------------------------------------------------------------------


def test_malformed_toml_names_file_and_line(tmp_path: Path) -> None:
    message = faults(tmp_path, "[families.a]\nteacher = \n")
    assert "registry.toml: not valid TOML" in message
    assert "line 2" in message


def test_a_missing_file_points_to_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml: no such registry file\. Check --registry"):
        load_registry(tmp_path / "gone.toml")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"r\.toml: cannot be read"):
        load_registry(tmp_path / "r.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_registry(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "defines no family"),
        ("families = 3", "defines no family"),
        ("[families]\n", "defines no family"),
        ("[families]\na = 3\n", "families.a: must be a table"),
        ("defaults = 3\n[families.a]\n", "defaults: must be a table"),
        ("[families.a]\ngate = 3\n", "families.a.gate: must be a table"),
        ("[defaults]\nsearch = 'x'\n[families.a]\n", "defaults.search: must be a table"),
        ("[family.a]\n[families.b]\n", "unknown table 'family'"),
        (TABLE + "[families.a]\n", "families.a.teacher: Field required"),
        (TABLE + "[families.a]\nteacher = 't'\n", "families.a.students: Field required"),
        (TABLE + "[families.a]\nteacher = 't'\nstudents = {}\n", "families.a.students: "),
        (TABLE + family("a", BOTH, "batchsize = 3"), "families.a.batchsize: Extra inputs are not permitted (given: 3)"),
        (TABLE + family("a", BOTH, "dtype = 'int8'"), "families.a.dtype: Input should be 'float32'"),
        (TABLE + family("a", BOTH, "gate = { dsr = 1.5 }"), "families.a.gate.dsr: Input should be less than or equal"),
        (TABLE + family("a", BOTH, "gate = { dsr = -1 }"), "families.a.gate.dsr: Input should be greater than"),
        (TABLE + family("a", BOTH, "gate = { drs = 0.5 }"), "families.a.gate.drs: Extra inputs"),
        (TABLE + family("a", BOTH, "search = { strategy = 'fast' }"), "families.a.search.strategy: Input should be"),
        (with_student('path = "x"').replace(".s]", '."a b"]'), "student name 'a b'"),
        (TABLE + '[families."a[b]"]\nteacher = "t"\nstudents = { s = "s" }\n', "family name 'a[b]': use ASCII letters"),
        (with_student('path = "x"').replace(".s]", '."français"]'), "student name 'français': use ASCII letters"),
        (TABLE + family("a", {"s": "maybe"}), "families.a.students.s.expected: Input should be 'pass' or 'fail'"),
        (with_student('path = "x"\nhf = "a/b"'), "families.a.students.s: Value error, give exactly one of"),
        (with_student(""), "give exactly one of path, gguf, hf, pypi, parts; found none"),
        (with_student('hf = "just-a-name"'), "families.a.students.s.hf: String should match pattern"),
        (with_student('pypi = "thing>=1"'), "families.a.students.s.pypi: String should match pattern"),
        (with_student('pypi = "thing==1"'), "a pypi source needs `file`"),
        (with_student(f'hf = "a/b"\nsha256 = "{"0" * 64}"'), "`sha256` pins one file"),
        (with_task('hf = "a/b"'), "families.a.students.s.task.report: Value error, an hf question set needs either"),
        (with_task('hf = "a/b", column = "q", file = "q.jsonl"'), "task.report: Value error, an hf question set needs"),
        (with_task('path = "q.csv", column = "q"'), "task.report: Value error, `column` is for hf datasets"),
        (with_student('path = "x"\nsha256 = "abc"'), "families.a.students.s.sha256: String should match pattern"),
        (with_student('path = "x"\npickle = true'), "families.a.students.s.pickle: Extra inputs"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_file_and_place(tmp_path: Path, text: str, message: str) -> None:
    found = faults(tmp_path, text)
    assert found.startswith(f"{tmp_path / 'registry.toml'}: ")
    assert message in found


def test_a_family_may_be_defined_once_only(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, other = write_registry(tmp_path), write_registry(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"other/registry\.toml: family 'alpha' is already defined"):
        load_registry(one, other)


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
    with pytest.raises(ConfigError) as caught:
        registry.select(**wanted)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)


def test_another_familys_teacher_takes_the_place_of_ones_own(registry: Registry) -> None:
    (student,) = registry.select(students=["alpha/two"], teacher="beta")
    assert student.id == "alpha/two"
    assert student.family.teacher.hf == "sample/beta-teacher"
    assert registry.families["alpha"].teacher.hf == "sample/alpha-teacher"


def test_an_expected_failure_is_the_students_own(registry: Registry) -> None:
    assert [student.spec.expected for student in registry.select(family="beta")] == ["fail", "pass"]


def test_what_names_adapters_alone_is_the_ancestor_with_them(tmp_path: Path) -> None:
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


def test_adapters_without_an_ancestor_are_adapters_of_nothing(tmp_path: Path) -> None:
    assert "give exactly one of" in faults(tmp_path, with_student('adapters = ["lora/one"]'))


def test_adding_to_a_student_needs_the_ancestor(tmp_path: Path) -> None:
    file = write_registry(tmp_path, family("a", BOTH), family("b", BOTH, 'ancestor = "base"'))
    found = load_registry(file, search={"transfer": "add"})
    (one, _) = found.select(family="b")
    assert one.family.ancestor is not None
    assert one.models == (one.family.teacher, one.family.ancestor, one.spec)
    with pytest.raises(ConfigError, match=r"Family 'a' is to add .* names no `ancestor`"):
        found.select()
    replacing = load_registry(file).select(family="b")[0]
    assert replacing.models == (replacing.family.teacher, replacing.spec)
