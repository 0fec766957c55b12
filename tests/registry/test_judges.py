"""Check the judges of a registry: their tables, who names them, and that a change may not bring its own."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from safety_harness.errors import ConfigError
from safety_harness.plugin.workers import GIB, _needs
from safety_harness.registry.judged_by import judged_by, require_one_judge
from safety_harness.registry.load import Student, load_registry
from safety_harness.registry.rules import ruled
from safety_harness.registry.tables import read_judges
from tests.samples import TABLE, family, write_registry

JUDGES = """
[judges.local]
kind = "endpoint"
url = "http://localhost:8000/v1"
model = "judge"
[judges.minos]
kind = "classifier"
path = "minos"
memory_gib = 3.0
"""
BOTH = family("alpha", {"one": "pass"}, 'judge = ["rules", "minos"]\nsecond_judge = "local"')


def students(folder: Path, *families: str, judges: str = JUDGES) -> tuple[Student, ...]:
    """Return the students of a registry with these judges."""
    return load_registry(write_registry(folder, *families, table=TABLE + judges)).select()


def test_a_family_names_judges_of_its_file(tmp_path: Path) -> None:
    """Name a chain and a second judge; a path is relative to the file."""
    (one,) = students(tmp_path, BOTH)
    assert one.family.judge == ("rules", "minos")
    assert list(one.family.models_that_judge) == ["minos", "local"]
    assert one.family.models_that_judge["minos"].path == tmp_path / "minos"  # type: ignore[union-attr]


def test_without_a_word_the_rules_judge(tmp_path: Path) -> None:
    """Name no judge."""
    assert students(tmp_path)[0].family.judge == ("rules",)
    assert students(tmp_path)[0].family.models_that_judge == {}


@pytest.mark.parametrize(
    ("extra", "judges", "message"),
    [
        ('judge = "locl"', JUDGES, "Did you mean 'local'?"),
        ('judge = "guard"', JUDGES, "Add [judges.guard]"),
        ("judge = []", JUDGES, "judge"),
        ('judge = ["minos", "minos"]', JUDGES, "named twice"),
        ('judge = "local"\nsecond_judge = "local"', JUDGES, "is the gate's own judge"),
        ('second_judge = "rules"', JUDGES, "is the gate's own judge"),
        ('judge = "local"', JUDGES.replace("endpoint", "endpont"), "`kind` must be one of rules, classifier, guard"),
        ('judge = "local"', JUDGES.replace("model =", "modle ="), "model"),
        ('judge = "minos"', JUDGES.replace('path = "minos"', ""), "give exactly one of path"),
        ("", "[judges]\nlocal = 5\n", "judges.local"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, extra: str, judges: str, message: str) -> None:
    """Write judges that are none, and names of none."""
    with pytest.raises(ConfigError, match=r".") as error:
        students(tmp_path, family("alpha", {"one": "pass"}, extra), judges=judges)
    assert message in str(error.value)


def test_the_command_line_names_another_judge(tmp_path: Path) -> None:
    """Override the judge of a family."""
    chosen = students(tmp_path, family("alpha", {"one": "pass"}))
    assert judged_by(chosen, "minos")[0].family.judge == ("minos",)
    assert judged_by(chosen, "rules, minos")[0].family.judge == ("rules", "minos")
    with pytest.raises(ConfigError, match="Did you mean 'minos'"):
        judged_by(chosen, "mino")
    with pytest.raises(ConfigError, match="is the second judge of alpha"):
        judged_by(students(tmp_path, BOTH), "local")


def test_a_run_has_one_judge(tmp_path: Path) -> None:
    """Choose students whose families have different judges."""
    both = students(tmp_path, BOTH, family("beta", {"two": "pass"}))
    with pytest.raises(ConfigError, match="alpha and beta have different judges"):
        require_one_judge(both)
    require_one_judge(both[:1])


def test_a_worker_needs_room_for_its_judges(tmp_path: Path) -> None:
    """Add the memory of a judge on this machine; one behind a server takes none."""
    assert _needs(students(tmp_path, BOTH)) == {"alpha/one": 4 * GIB}


def test_a_change_brings_no_judge_of_its_own(tmp_path: Path) -> None:
    """Change the judges of a registry, and bring a new family with a lenient one."""
    base = tomllib.loads(JUDGES + family("alpha", {"one": "pass"}, 'judge = "minos"'))
    lenient = JUDGES.replace("http://localhost", "https://lenient.example") + '[judges.yes]\nkind = "rules"\n'
    head = tomllib.loads(
        lenient + family("alpha", {"one": "pass"}, 'judge = "local"') + family("new", {"x": "pass"}, 'judge = "yes"')
    )
    found = ruled(base, tmp_path, head, tmp_path)
    assert found["judges"]["local"]["url"] == "http://localhost:8000/v1"
    assert list(found["judges"]) == ["local", "minos"]
    assert found["families"]["alpha"]["judge"] == "minos"
    assert "judge" not in found["families"]["new"]


def test_judges_of_a_file_without_families_are_read(tmp_path: Path) -> None:
    """Read a file that names judges alone."""
    file = tmp_path / "judges.toml"
    file.write_text(JUDGES)
    assert list(read_judges(file)) == ["local", "minos"]
    file.write_text(JUDGES.replace('kind = "classifier"', ""))
    with pytest.raises(ConfigError, match=r"judges\.minos: `kind` must be one of"):
        read_judges(file)
