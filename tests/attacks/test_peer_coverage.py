"""The comparison of attack tools shows a verdict only with evidence that is there."""

from __future__ import annotations

import ast
import copy
import hashlib
import io
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality.attack_coverage import (
    ROOT,
    TABLE,
    TOOLS,
    Cell,
    abstract,
    classes_of,
    compact,
    derived,
    evidence,
    line_of,
    opened,
    own_files,
    rows_of,
    takes,
)
from safety_harness.attacks.builtin import builtin_attacks

FILES = {"a/x.py": "one\ntwo prefill\n", "a/y.js": "three\n", "b/z.txt": "prefill\n"}
SOURCE = """
class Converter(abc.ABC):
    @abc.abstractmethod
    async def convert_async(self): ...
class Plain(Converter):
    def __init__(self, *, text): ...
class Asking(Plain):
    def __init__(self, *, converter_target): ...
class Other: ...
"""


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def test_a_text_is_found_by_its_line() -> None:
    assert line_of(FILES, "a/x.py", "prefill") == 2
    with pytest.raises(LookupError, match=r"no file a/w\.py"):
        line_of(FILES, "a/w.py", "one")
    with pytest.raises(LookupError, match="has no line with 'three'"):
        line_of(FILES, "a/x.py", "three")


def test_absence_is_of_every_source_file() -> None:
    assert Cell("none", nowhere="four").evidence(FILES) == ["no source file matches `four`"]
    assert Cell("none", nowhere="prefill", under="b/").evidence(FILES)
    assert Cell("none", nowhere="prefill", only=["a/x.py"]).evidence(FILES)
    with pytest.raises(LookupError, match=r"matched by \['a/x.py'\], and should be by \[\]"):
        Cell("none", nowhere="prefill").evidence(FILES)
    with pytest.raises(LookupError, match=r"matched by \[\], and should be by \['a/y.js'\]"):
        Cell("none", nowhere="four", only=["a/y.js"]).evidence(FILES)


def test_faults_are_told_with_their_tool(table: dict[str, Any]) -> None:
    rows = rows_of(table)[:1]
    lines, faults = evidence(rows, {tool: {} for tool in TOOLS})
    assert [fault.partition(":")[0] for fault in faults] == ["prefill, ours", "prefill, garak"]
    assert "- ours: offline. not found" in lines


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"is": "perhaps", "at": [["a", "b"]]}, "'perhaps' is none of offline"),
        ({"is": "none"}, "the cell of pyrit has no evidence"),
        (None, r"has cells for \['ours', 'garak', 'deepteam', 'promptfoo'\]"),
    ],
)
def test_a_table_with_a_gap_is_refused(table: dict[str, Any], change: dict[str, Any] | None, told: str) -> None:
    changed = copy.deepcopy(table)
    if change is None:
        del changed["attacks"]["prefill"]["pyrit"]
    else:
        changed["attacks"]["prefill"]["pyrit"] = change
    with pytest.raises(ValueError, match=told):
        rows_of(changed)


def test_classes_are_counted_by_base_and_parameter() -> None:
    classes = classes_of({"p/c.py": SOURCE, "q/d.py": "class Far(Converter): ..."}, "p/")
    names = derived(classes, "Converter")
    assert names == ["Asking", "Plain"]
    assert [name for name in names if takes(classes[name], "__init__", "converter_target")] == ["Asking"]
    assert [name for name in classes if abstract(classes[name])] == ["Converter"]
    assert not abstract(ast.parse("class A:\n    @property\n    def b(self): ...").body[0])  # type: ignore[arg-type]


def test_archives_are_read_by_their_digest(tmp_path: Path) -> None:
    wheel, package = tmp_path / "a.whl", tmp_path / "a.tgz"
    with zipfile.ZipFile(wheel, "w") as files:
        files.writestr("a/x.py", "one")
        files.writestr("a/y.bin", "two")
    with tarfile.open(package, "w:gz") as tar:
        for name in ("package/dist/src/a.js", "package/dist/src/app/b.js"):
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"one"))
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (wheel, package)]
    assert opened(wheel, digests[0]) == {"a/x.py": "one"}
    assert opened(package, digests[1]) == {"package/dist/src/a.js": "one"}
    with pytest.raises(SystemExit, match=r"a.whl: its sha256 is not .* Download it again"):
        opened(wheel, digests[1])
    with pytest.raises(SystemExit, match=r"b.whl: there is no such file"):
        opened(tmp_path / "b.whl", digests[0])


def test_what_is_said_of_ours_is_in_the_tree(table: dict[str, Any]) -> None:
    files = own_files()
    assert len([row.cells["ours"].evidence(files) for row in rows_of(table)]) > 20


def test_every_kind_of_attack_has_a_row(table: dict[str, Any]) -> None:
    assert list(table["attacks"]) == list(dict.fromkeys(attack.kind for attack in builtin_attacks().values()))


def test_the_pages_show_the_verdicts(table: dict[str, Any]) -> None:
    shown = compact(rows_of(table))
    for page in ("docs/conventions.md", "benchmarks/quality/attack_coverage.md"):
        assert shown in (ROOT / page).read_text(encoding="utf-8"), f"{page}: run the benchmark and copy its table"
