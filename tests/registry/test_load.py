"""Check what registry files may say, what is refused and how, and which students a run is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from safety_harness.errors import ConfigError
from safety_harness.registry.load import Registry, load_registry
from safety_harness.registry.sources import Source
from tests.samples import TABLE, family, write_registry

BOTH = {"one": "pass", "two": "pass"}


def load(folder: Path, *families: str, table: str = TABLE) -> Registry:
    """Read a registry of sample *families*."""
    return load_registry(write_registry(folder, *families, table=table))


def faults(folder: Path, text: str) -> str:
    """Return the message for a registry file that holds *text*."""
    (folder / "registry.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_registry(folder / "registry.toml")
    return str(caught.value)


def with_student(body: str) -> str:
    """Return a registry with one student, whose table is *body*."""
    return f'{TABLE}\n[families.a]\nteacher = "teacher"\n[families.a.students.s]\n{body}\n'


def with_task(report: str) -> str:
    """Return a registry with one student, whose task has this *report* source."""
    return with_student(f'path = "x"\ntask = {{ search = "t.jsonl", report = {{ {report} }} }}')


def with_tuned(adapters: str, base: str = "[]") -> str:
    """Return a registry with one student that is its ancestor with *adapters* on top of the *base* adapters."""
    ancestor = f'[families.a.ancestor]\npath = "base"\nadapters = {base}\n'
    return with_student(f"adapters = {adapters}\n{ancestor}")


# --- What is read ----------------------------------------------------------------------------------------------------


def test_defaults_hold_for_every_family_and_a_family_may_differ(tmp_path: Path) -> None:
    """Read two families, one with a batch size of its own."""
    registry = load(tmp_path, family("a", BOTH, "batch_size = 8"), family("b", BOTH), table=TABLE + "batch_size = 32\n")
    assert [entry.batch_size for entry in registry.families.values()] == [8, 32]


def test_thresholds_of_a_family_are_added_to_the_defaults(tmp_path: Path) -> None:
    """Set some thresholds in the defaults and some in a family."""
    table = TABLE + "gate = { dsr = 0.7, task = 0.3 }\nsearch = { max_probes = 9 }\n"
    registry = load(tmp_path, family("a", BOTH, "gate = { dsr = 0.9 }\nsearch = { prior = 'norm' }"), table=table)
    assert (registry.families["a"].gate.dsr, registry.families["a"].gate.task) == (0.9, 0.3)
    assert (registry.families["a"].search.max_probes, registry.families["a"].search.prior) == (9, "norm")


def test_options_override_thresholds_of_the_file(tmp_path: Path) -> None:
    """Give thresholds as options and in the file."""
    file = write_registry(tmp_path, family("a", BOTH, "gate = { dsr = 0.7 }\nsearch = { max_probes = 9 }"))
    read = load_registry(file, gate={"dsr": 0.5}, search={"max_probes": 3}).families["a"]
    assert (read.gate.dsr, read.gate.task, read.search.max_probes) == (0.5, 0.10, 3)


def test_a_students_own_settings_win_and_options_win_over_both(tmp_path: Path) -> None:
    """Give settings to a student, its family and the run; the family keeps its settings."""
    text = with_student('path = "x"\nsearch = { task = 0.3, max_probes = 7 }')
    text += '[families.a.students.t]\npath = "y"\n[families.a.search]\nmax_probes = 9\nprior = "norm"\n'
    (tmp_path / "registry.toml").write_text(text)
    students = load_registry(tmp_path / "registry.toml").select()
    special, plain = (student.search for student in students)
    assert (special.task, special.max_probes, special.prior) == (0.3, 7, "norm")
    assert (plain.task, plain.max_probes, plain.prior) == (None, 9, "norm")
    assert [student.family.search for student in students] == [plain, plain]
    assert [student.gate for student in students] == [student.family.gate for student in students]
    given = load_registry(tmp_path / "registry.toml", search={"max_probes": 3}).select()
    assert [(student.search.task, student.search.max_probes) for student in given] == [(0.3, 3), (None, 3)]


@pytest.mark.parametrize(
    ("search", "message"),
    [("4", "families.a.students.s.search: must be a table, not 4"), ("{ probes = 4 }", "students.s.search.probes")],
)
def test_a_students_search_is_checked_as_the_familys(tmp_path: Path, search: str, message: str) -> None:
    """Give settings that are no table, and an unknown setting."""
    assert message in faults(tmp_path, with_student(f'path = "x"\nsearch = {search}'))


def test_relative_paths_start_at_the_registry_file(tmp_path: Path) -> None:
    """Check paths of models, adapters, tasks and questions."""
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
    """Check the list of texts to keep."""
    table = TABLE.replace('text = "text.jsonl"', 'text = { path = "text.jsonl", only = "t.sha256", limit = 5 }')
    text = load(tmp_path, table=table).families["alpha"].text
    assert (text.only, text.limit) == (tmp_path / "t.sha256", 5)


def test_embedded_families_load_with_the_tiny_students() -> None:
    """Read the files that ship with the package."""
    tiny = load_registry().select(family="tiny")
    assert len({student.id for student in tiny}) == 19
    assert len({student.spec.path for student in tiny}) == 17  # two have a second teacher, and attacks
    assert [name for name in load_registry().families if name.startswith("tiny")] == [
        "tiny-llama",
        "tiny-mistral",
        "tiny-gemma",
        "tiny-robust",
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
    """Check the short form of sources of several kinds."""
    assert str(source) == shown


# --- What is refused -------------------------------------------------------------------------------------------------


def test_malformed_toml_names_file_and_line(tmp_path: Path) -> None:
    """Read a value that is missing."""
    message = faults(tmp_path, "[families.a]\nteacher = \n")
    assert "registry.toml: not valid TOML" in message
    assert "line 2" in message


def test_a_missing_file_points_to_the_option(tmp_path: Path) -> None:
    """Read a file that does not exist."""
    with pytest.raises(ConfigError, match=r"gone\.toml: no such registry file\. Check the path"):
        load_registry(tmp_path / "gone.toml")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Read bytes that are not UTF-8, and a folder."""
    (tmp_path / "r.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"r\.toml: not UTF-8"):
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
        (TABLE + "[families.a]\n", "families.a.students: Field required"),
        (TABLE + "[families.a]\nteacher = 't'\n", "families.a.students: Field required"),
        (TABLE + "[families.a]\nteacher = 't'\nstudents = {}\n", "families.a.students: "),
        (TABLE + family("a", BOTH, "batchsize = 3"), "families.a.batchsize: unknown key (given: 3)"),
        (TABLE + family("a", BOTH, "dtype = 'int8'"), "families.a.dtype: Input should be 'float32'"),
        (TABLE + family("a", BOTH, "gate = { dsr = 1.5 }"), "families.a.gate.dsr: Input should be less than or equal"),
        (TABLE + family("a", BOTH, "gate = { dsr = -1 }"), "families.a.gate.dsr: Input should be greater than"),
        (TABLE + family("a", BOTH, "gate = { drs = 0.5 }"), "families.a.gate.drs: unknown key"),
        (TABLE + family("a", BOTH, "search = { strategy = 'fast' }"), "families.a.search.strategy: Input should be"),
        (with_student('path = "x"').replace(".s]", '."a b"]'), "student name 'a b'"),
        (TABLE + '[families."a[b]"]\nteacher = "t"\nstudents = { s = "s" }\n', "family name 'a[b]': use ASCII letters"),
        (with_student('path = "x"').replace(".s]", '."français"]'), "student name 'français': use ASCII letters"),
        (TABLE + family("a", {"s": "maybe"}), "families.a.students.s.expected: Input should be 'pass' or 'fail'"),
        (with_student('path = "x"\nhf = "a/b"'), "families.a.students.s: give exactly one of"),
        (with_student(""), "give exactly one of path, gguf, hf, pypi, parts, served; found none"),
        (with_student('hf = "just-a-name"'), "families.a.students.s.hf: String should match pattern"),
        (with_student('pypi = "thing>=1"'), "families.a.students.s.pypi: String should match pattern"),
        (with_student('pypi = "thing==1"'), "a pypi source needs `file`"),
        (with_student(f'hf = "a/b"\nsha256 = "{"0" * 64}"'), "`sha256` pins one file"),
        (with_task('hf = "a/b"'), "families.a.students.s.task.report: an hf question set needs either"),
        (with_task('path = "q.csv", config = "main"'), "task.report: `config` is for hf datasets"),
        (with_task('path = "q.csv", where = { label = 3 }'), "task.report.where.label"),
        (with_task('path = "q.csv", part = "third"'), "task.report.part: Input should be 'search' or 'report'"),
        (with_student('path = "x"\nsha256 = "abc"'), "families.a.students.s.sha256: String should match pattern"),
        (with_student('path = "x"\npickle = true'), "families.a.students.s.pickle: unknown key"),
        (with_student('path = "~nobody-here/x"'), "families.a.students.s.path: no home folder is known"),
        (with_tuned("'lora/one'"), "families.a.students.s.adapters: Input should be a valid tuple (given: 'lora/one')"),
        (with_tuned("3"), "families.a.students.s.adapters: Input should be a valid tuple (given: 3)"),
        (with_tuned("[]", base="'lora/one'"), "families.a.ancestor.adapters: Input should be a valid tuple"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_file_and_place(tmp_path: Path, text: str, message: str) -> None:
    """Check one fault of each kind."""
    fault = faults(tmp_path, text)
    assert fault.startswith(f"{tmp_path / 'registry.toml'}: ")
    assert message in fault


def test_a_family_may_be_defined_once_only(tmp_path: Path) -> None:
    """Define a family in two files."""
    (tmp_path / "other").mkdir()
    one, other = write_registry(tmp_path), write_registry(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"other/registry\.toml: family 'alpha' is already defined"):
        load_registry(one, other)


def test_adapters_without_an_ancestor_are_adapters_of_nothing(tmp_path: Path) -> None:
    """Name adapters where there is no ancestor."""
    assert "give exactly one of" in faults(tmp_path, with_student('adapters = ["lora/one"]'))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("bacth_size = 3", "families.a.bacth_size: unknown key (given: 3). Did you mean 'batch_size'?"),
        ('text = { pth = "x" }', "families.a.text.pth: unknown key (given: 'x'). Did you mean 'path'?"),
        ("zzzzzz = 3", "All keys are in docs/reference.md"),
        ("batch_size = true", "families.a.batch_size: no setting is true or false (given: True)"),
        ("near_duplicates = false", "families.a.near_duplicates: no setting is true or false"),
        ("near_duplicates = nan", "families.a.near_duplicates: Input should be"),
        ("memory_gib = inf", "families.a.memory_gib: Input should be a finite number"),
        ("batch_size = 1000000000000", "families.a.batch_size: Input should be less than or equal to 1000000"),
        ("max_new_tokens = -1", "families.a.max_new_tokens: Input should be greater than or equal to 1"),
        ("gate = { dsr = true }", "families.a.gate.dsr: no setting is true or false"),
        ("gate = { perplexity = inf }", "families.a.gate.perplexity: Input should be a finite number"),
        ("gate = { divergence = nan }", "families.a.gate.divergence: Input should be a finite number"),
        ("search = { max_probes = true }", "families.a.search.max_probes: no setting"),
        ('text = ""', "families.a.text.path: is empty"),
        ('text = { path = "t.txt", only = "" }', "families.a.text.only: is empty"),
        ('text = { path = "t.txt", limit = -3 }', "families.a.text.limit: Input should be greater than or equal to 1"),
        ('text = { hf = "a/b", file = "" }', "families.a.text.file: String should have at least 1 character"),
        ('text = { hf = "a/b", column = "x", revision = "" }', "families.a.text.revision: String should have at least"),
        (f'text = "{"x" * 300}"', "families.a.text.path: no file can have this name"),
        (f'text = "{"x/" * 3000}"', "families.a.text.path: no file can have this name"),
        ('text = "a\\u0000b"', "families.a.text.path: no file can have this name"),
        (f'text = {{ pypi = "a==1", sha256 = "{"0" * 64}", file = "../x" }}', "`file` leads out of the wheel"),
        (f'text = {{ pypi = "a==1", sha256 = "{"0" * 64}", file = "/x" }}', "`file` leads out of the wheel"),
        ('text = "C:\\data"', "not valid TOML: Unescaped"),
        ('[families.a.students.s]\npath = "y"', "line"),
        (f'[families.a.students.{"s" * 101}]\npath = "y"', "only, at most 100"),
    ],
)
def test_an_odd_value_is_refused_with_its_key(tmp_path: Path, line: str, message: str) -> None:
    """Give truth values for numbers, numbers out of range, empty texts, and paths that no file can have."""
    text = with_student('path = "x"').replace('teacher = "teacher"\n', f'teacher = "teacher"\n{line}\n')
    fault = faults(tmp_path, text)
    assert message in fault
    assert "\n" not in fault


def test_a_registry_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """Read what Windows' editors write."""
    text = with_student('path = "x"').replace("\n", "\r\n")
    (tmp_path / "registry.toml").write_text(text, encoding="utf-8-sig", newline="")
    assert [student.name for student in load_registry(tmp_path / "registry.toml").select()] == ["s"]


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 99_999, "[" + "a." * 9_999 + "a]", "a = " + "9" * 9_999, "x" * (1 << 20)]
)
def test_a_hostile_registry_is_refused(tmp_path: Path, text: str) -> None:
    """Read tables nested deep, a long number and a large file."""
    assert faults(tmp_path, text).startswith(f"{tmp_path / 'registry.toml'}: ")


def test_a_name_with_a_line_break_is_shown_on_one_line(tmp_path: Path) -> None:
    """Name a family as no table of a report could."""
    assert "\n" not in faults(tmp_path, '[families."a\\nb"]\nx = 1\n')


# --- Served students -------------------------------------------------------------------------------------------------


def with_server(keys: str, more: str = "") -> str:
    """Return a registry with one student that a server answers for, whose table has these *keys*."""
    return with_student(f"served = {{ {keys} }}\n{more}")


def test_a_student_may_be_served(tmp_path: Path) -> None:
    """Expect no model to be needed, not even the teacher's, and the end of an address to be optional."""
    (tmp_path / "registry.toml").write_text(
        with_server('url = "https://host:8000/v1/chat/completions", model = "org/m", extra = { top_k = 1 }')
    )
    (student,) = load_registry(tmp_path / "registry.toml").select()
    assert student.spec.served is not None
    assert (student.spec.served.url, student.spec.served.concurrency) == ("https://host:8000/v1", 4)
    assert (student.models, student.patchable) == ((), False)
    assert str(student.spec) == "served:host:8000/v1/org/m"
    with pytest.raises(ConfigError, match="a/s: is served, and a patch needs its weights"):
        student.require_teacher()


URL = 'url = "http://h/v1", model = "m"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (with_server('model = "m"'), "served.url: Field required"),
        (with_server('url = "http://h/v1"'), "served.model: Field required"),
        (with_server('url = "ftp://h/v1", model = "m"'), "must be like http://localhost:8000/v1"),
        (with_server('url = "localhost:8000", model = "m"'), "must be like http://localhost:8000/v1"),
        (with_server('url = "http://h:99999/v1", model = "m"'), "no address"),
        (with_server('url = "http://h/v 1", model = "m"'), "without a space"),
        (
            with_server('url = "http://me:secret1@h/v1", model = "m"'),
            "holds a key: put it into an environment variable",
        ),
        (with_server('url = "http://h/v1?api_key=secret1", model = "m"'), "holds a key: put it into an environment"),
        (with_server(f'{URL}, key_env = "sk-secret1"'), "`key_env` is no name of an environment variable"),
        (with_server(f"{URL}, timeout = 0"), "served.timeout: "),
        (with_server(f"{URL}, concurrency = 0"), "served.concurrency: "),
        (with_server(f"{URL}, extra = {{ n = 5 }}"), "`extra` holds 'n', which is not for it to say"),
        (with_server(f"{URL}, extra = {{ day = 2025-01-01 }}"), "`extra` is no JSON"),
        (with_server(f"{URL}, extra = {{ x = nan }}"), "`extra` is no JSON"),
        (with_server(f'{URL}, omit = ["max_tokens"]'), "without `max_tokens` an answer has no end"),
        (with_server(f'{URL}, omit = ["messages"]'), "served.omit.0: "),
        (with_server(URL, 'path = "x"'), "give exactly one of path, gguf, hf, pypi, parts, served; found path, served"),
        (with_server(URL, 'adapters = ["x"]'), "`adapters` is about weights, and a served student has none here"),
        (f'{TABLE}\n[families.a]\nteacher = {{ served = {{ {URL} }} }}\nstudents.s = "x"', "families.a.teacher.served"),
    ],
)
def test_a_server_that_cannot_be_asked_is_refused(tmp_path: Path, text: str, message: str) -> None:
    fault = faults(tmp_path, text)
    assert message in fault
    assert "secret1" not in fault
