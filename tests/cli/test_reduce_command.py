"""Check `safety-harness reduce`: a file, a script that exits 0, and what is written when."""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_harness.cli.main import main
from safety_harness.ddmin import Event, Progress, minimize
from safety_harness.ddmin.filetest import pieces

LINES = b"".join(b"line %02d\n" % i for i in range(40))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of 40 lines."""
    path = tmp_path / "input.txt"
    path.write_bytes(LINES)
    return path


def script(folder: Path, body: str) -> str:
    """Write a script that also notes each call in `calls`. Return its path."""
    path = folder / "interesting.sh"
    path.write_text(f'#!/bin/sh\necho "$1" >> "{folder}/calls"\n{body}\n', encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def needs(*lines: int) -> str:
    """Return a shell condition: the candidate holds these lines."""
    return " && ".join(f'grep -q "line {line:02d}" "$1"' for line in lines)


def calls(folder: Path) -> int:
    """Count how often the script was run."""
    return len((folder / "calls").read_text().splitlines())


@pytest.mark.parametrize("options", [[], ["--workers", "3"], ["--strategy", "adaptive"], ["--certificate", "monotone"]])
def test_the_lines_that_matter_are_left(
    file: Path, options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = script(file.parent, needs(3, 17, 18))
    monkeypatch.chdir(file.parent)  # a script given by a relative path is found from everywhere
    assert main(["reduce", *options, str(file), os.path.relpath(command)]) == 0
    assert (file.parent / "input.reduced.txt").read_bytes() == b"line 03\nline 17\nline 18\n"
    assert file.read_bytes() == LINES
    printed = capsys.readouterr()
    assert "3 of 40 units, 1-minimal" in printed.out
    assert printed.err == ""  # not a terminal
    assert sorted(p.name for p in file.parent.iterdir()) == [
        "calls",
        "input.reduced.txt",
        "input.txt",
        "interesting.sh",
    ]


def test_candidates_keep_their_name_in_a_directory_of_their_own(file: Path) -> None:
    command = script(file.parent, f'test "$(ls)" = input.txt && touch mess && {needs(5)}')
    assert main(["reduce", str(file), command]) == 0
    assert (file.parent / "input.reduced.txt").read_bytes() == b"line 05\n"


def test_a_script_given_to_an_interpreter_is_found_anywhere(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give both names relative to where the command starts; candidates lie elsewhere."""
    (file.parent / "check.sh").write_text(needs(5))
    monkeypatch.chdir(file.parent)
    assert main(["reduce", "--journal", "journal", str(file), "sh", "check.sh"]) == 0
    assert (file.parent / "input.reduced.txt").read_bytes() == b"line 05\n"


def test_other_separators(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"a;b;xyz;c")
    command = script(tmp_path, 'grep -q "y" "$1"')
    assert main(["reduce", "--separator", ";", "--out", str(tmp_path / "out"), str(tmp_path / "list"), command]) == 0
    assert (tmp_path / "out").read_bytes() == b"xyz;"
    assert main(["reduce", "--separator", "", "--out", str(tmp_path / "out"), str(tmp_path / "list"), command]) == 0
    assert (tmp_path / "out").read_bytes() == b"y"


@pytest.mark.parametrize(
    ("body", "message"),
    [("false", "is false on the full set of 40 units"), ("sleep 60", "has no answer (Unresolved) on the full set")],
)
def test_a_file_that_the_script_does_not_accept(
    file: Path, body: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = time.monotonic()
    assert main(["reduce", "--timeout", "0.5", str(file), script(file.parent, body)]) == 2
    assert time.monotonic() - begun < 20
    assert message in capsys.readouterr().err
    assert not (file.parent / "input.reduced.txt").exists()


def test_a_script_that_accepts_everything_is_reported(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reduce", str(file), script(file.parent, "true")]) == 0
    assert "0 of 40 units: the oracle accepts the empty set; 2 calls" in capsys.readouterr().out


@pytest.mark.parametrize(("mode", "message"), [(0o644, "is it executable"), (None, "cannot be run")])
def test_a_script_that_cannot_be_run(
    file: Path, mode: int | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = Path(script(file.parent, "true"))
    if mode is None:
        command.unlink()
    else:
        command.chmod(mode)
    assert main(["reduce", str(file), str(command)]) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reduce", str(tmp_path / "none"), "true"]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_an_error_on_the_way_writes_down_the_best_so_far(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Let the script remove itself after its 6th call."""
    folder = file.parent
    gone = f'test "$(wc -l < "{folder}/calls")" -lt 6 || rm "{folder}/interesting.sh"; {needs(3)}'
    assert main(["reduce", str(file), script(folder, gone)]) == 2
    assert "cannot be run" in capsys.readouterr().err
    best = (folder / "input.reduced.txt").read_bytes()
    assert b"line 03\n" in best
    assert len(best) < len(LINES)


def test_budgets_and_resuming(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = file.parent
    journal = folder / "answers"
    command = ["--journal", str(journal), str(file), script(folder, needs(3, 30))]
    assert main(["reduce", "--calls", "7", *command]) == 0
    assert "stopped: calls; 7 calls" in capsys.readouterr().out
    assert calls(folder) == 7
    assert main(["reduce", *command]) == 0
    whole = calls(folder)
    assert main(["reduce", *command]) == 0
    assert calls(folder) == whole
    assert main(["reduce", "--timeout", "99", *command]) == 2  # what had no answer in time may have one in more
    assert "not a journal of this oracle" in capsys.readouterr().err
    file.write_bytes(LINES + b"line 40\n")
    assert main(["reduce", *command]) == 2
    assert "not a journal of this oracle" in capsys.readouterr().err
    assert main(["reduce", "--size", "30", "--seconds", "60", *command[2:]]) == 0
    assert "stopped: size" in capsys.readouterr().out


def test_a_flaky_script(file: Path) -> None:
    """Let every 7th run be wrong."""
    folder = file.parent
    body = f'n=$(wc -l < "{folder}/calls"); if {needs(3, 17)}; then r=0; else r=1; fi\n'
    body += "if [ $((n % 7)) -eq 5 ]; then exit $((1 - r)); fi; exit $r"
    assert main(["reduce", "--flips", "0.15", str(file), script(folder, body)]) == 0
    assert {b"line 03", b"line 17"} <= set((folder / "input.reduced.txt").read_bytes().splitlines())


@given(st.binary(max_size=40), st.binary(max_size=2))
def test_pieces_are_the_content(content: bytes, separator: bytes) -> None:
    cut = pieces(content, separator)
    assert b"".join(cut) == content
    assert all(cut)
    if separator:
        assert all(piece.endswith(separator) for piece in cut[:-1])
        assert len(cut) - (not content.endswith(separator) and bool(content)) == content.count(separator)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_is_one_live_line_and_only_on_a_terminal() -> None:
    shown, silent, events = Terminal(), io.StringIO(), list[Event]()
    for stream in (shown, silent):
        with Progress(stream) as progress:
            minimize(range(40), lambda subset: {3, 17} <= set(subset), on_event=progress)
    minimize(range(40), lambda subset: {3, 17} <= set(subset), on_event=events.append)
    assert silent.getvalue() == ""
    drawn = shown.getvalue()
    assert drawn.endswith("\n")
    assert drawn.count("\n") == 1
    assert "2 of 40 units" in drawn
    assert f"{events[-1].calls} calls, about 0 to go" in drawn.splitlines()[-1]


def test_a_script_may_have_an_argument_that_is_no_name(tmp_path: Path) -> None:
    """Give a script in the command line, which is longer than a file's name may be."""
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    code = f"import sys; {'x = 1; ' * 99}sys.exit('two' not in open(sys.argv[1]).read())"
    assert main(["reduce", str(tmp_path / "a.txt"), "--", sys.executable, "-c", code]) == 0
    assert (tmp_path / "a.reduced.txt").read_text() == "two\n"


def test_a_device_is_not_reduced(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reduce", "/dev/zero", "true"]) == 2
    assert "it is a pipe or a device" in capsys.readouterr().err
