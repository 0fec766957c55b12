"""Apply a patch in a process of its own: check its memory, and what is left when it is killed."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from safety_harness.files import clear_debris
from safety_harness.patch.apply import State, apply, revert, verify
from safety_harness.patch.export import mergekit, peft_adapter
from safety_harness.patch.folder import BOM, CARD, MANIFEST, PATCH, SUMS
from safety_harness.search.write_patch import build
from tests.artifacts import Made, files
from tests.builders import make_pair
from tests.deaths import deaths

MIB = 1 << 20
# What hashing, copying and small objects may take in addition to the tensors.
SLACK_BYTES = 2 * MIB
KILLS = 6
PROGRAM = "import sys; from safety_harness.cli.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def large(made: Callable[..., Made], tmp_path: Path) -> Made:
    """A patch of a third of the modules, for 50 MiB of weights with each larger tensor in a shard of its own."""
    sizes = {"hidden_size": 128, "intermediate_size": 2**13, "num_hidden_layers": 4}
    make_pair(tmp_path / "llama", "llama", shard="5MB", **sizes)
    return made("llama")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process from /proc")
def test_memory_stays_below_one_shard_and_the_patch(large: Made, tmp_path: Path) -> None:
    """Measure the peak of a process from its imports on."""
    program = (
        "import re, sys; from pathlib import Path\n"
        "from safety_harness.cli import main, patch\n"
        "from safety_harness.patch import apply, folder\n"
        "proc = Path('/proc/self')\n"
        "kib = lambda what: int(re.search(rf'{what}:\\s+(\\d+)', (proc / 'status').read_text())[1])\n"
        "(proc / 'clear_refs').write_text('5')\n"  # forgets the peak so far
        "before = kib('VmRSS'); code = main.main(sys.argv[1:]); print(kib('VmHWM') - before); sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "apply", large.artifact.folder, large.student, "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken = 1024 * int(done.stdout.splitlines()[-1])
    assert verify(large.artifact, tmp_path / "out").state is State.APPLIED
    shards = sorted(file.stat().st_size for file in large.student.glob("*.safetensors"))
    assert sum(shards) > 10 * shards[-1]
    assert taken < shards[-1] + (large.artifact.folder / PATCH).stat().st_size + SLACK_BYTES


def test_killed_at_any_moment_it_leaves_no_half_model(large: Made, tmp_path: Path) -> None:
    """Kill the process several times while it writes, and let the last run end.

    On a busy machine a process may end before its kill, and is then started again.
    """
    out, rng, killed = tmp_path / "out", random.Random(0), 0
    command = [sys.executable, "-c", PROGRAM, "apply", large.artifact.folder, large.student, "--out", out]
    start = time.perf_counter()
    apply(large.artifact, large.student, tmp_path / "timed")
    seconds = time.perf_counter() - start
    for _ in range(4 * KILLS):
        if killed == KILLS:
            break
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not begun(tmp_path, out) and running.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, seconds))
        running.send_signal(signal.SIGKILL)
        killed += running.wait() == -signal.SIGKILL
        if out.exists():
            assert verify(large.artifact, out).state is State.APPLIED
            out.rename(tmp_path / f"whole-{len(list(tmp_path.iterdir()))}")
        assert len(begun(tmp_path, out)) <= 1
    assert killed == KILLS
    assert subprocess.run(command, check=False).returncode == 0
    assert verify(large.artifact, out).state is State.APPLIED
    assert begun(tmp_path, out) == []


@pytest.mark.slow
def test_a_death_at_any_change_leaves_a_whole_release_or_none(made: Callable[..., Made], tmp_path: Path) -> None:
    """Die at each change of the disk, and write again: nothing that is half done, nothing that stays."""
    made_ = made(whole=True, keep_original=True)
    apply(made_.artifact, made_.student, tmp_path / "patched")
    for number, write in enumerate(
        (
            lambda out: apply(made_.artifact, made_.student, out),
            lambda out: revert(made_.artifact, tmp_path / "patched", out),
            lambda out: peft_adapter(made_.artifact, made_.student, out),
            lambda out: mergekit(made_.artifact, made_.student, made_.teacher, out),
            lambda out: build(made_.evaluator, made_.artifact.manifest.search, out, keep_original=True),
        )
    ):
        out = tmp_path / str(number) / "out"
        write(out)
        expected, died = content(out), 0
        shutil.rmtree(out.parent)
        for _ in deaths(lambda write=write, out=out: write(out)):
            died += 1
            if out.exists():
                assert content(out) == expected
                clear_debris(out.parent)
            else:
                write(out)
                assert content(out) == expected
            assert list(out.parent.iterdir()) == [out]
            shutil.rmtree(out.parent)
        assert died > 8
        assert content(out) == expected


def content(path: Path) -> dict[str, bytes]:
    """Return the bytes of a file, or of each file in a folder; those that hold the date of a patch are empty."""
    if path.is_file():
        return {path.name: path.read_bytes()}
    dated = (MANIFEST, CARD, BOM, SUMS)
    return {name: b"" if name in dated else raw for name, raw in files(path).items()}


def begun(folder: Path, out: Path) -> list[Path]:
    """List what is being written on the way to *out*."""
    return list(folder.glob(f".{out.name}.*"))
