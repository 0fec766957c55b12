"""Start engines and end them: one that answers, others that do not, and one whose owner is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from safety_harness.errors import ConfigError, SourceError
from safety_harness.registry.backend import Backend
from safety_harness.registry.load import load_registry
from safety_harness.served.engine import check_backend, running
from tests.fake_engine import ENV
from tests.samples import family, write_registry

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "fake_engine.py"


def backend(mode: str = "answers", **more: Any) -> Backend:
    return Backend(kind="vllm", command=(sys.executable, str(PROGRAM), mode), **{"start_within": 20.0, **more})


def gone(pids: list[int]) -> bool:
    """Return whether these processes end within a few seconds."""
    until = time.monotonic() + 15
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which an engine says what it was told."""
    monkeypatch.setenv(ENV, str(tmp_path / "notes.json"))
    return tmp_path / "notes.json"


def test_an_engine_is_started_and_ended_with_its_children(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expect its version, a name of its own, a log, no shell and nothing of this Python; then no process at all."""
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    log = tmp_path / "logs" / "engine.log"
    with running(backend(arguments=("--more", f"$(touch {tmp_path}/shell)")), tmp_path, "float32", log) as engine:
        assert engine.version == "9.9"
        assert engine.server.model.startswith("safety-harness-")
        assert engine.server.url.startswith("http://127.0.0.1:")
        told = json.loads(notes.read_text())
        assert told["path"] is None
        assert told["arguments"][:2] == ["answers", str(tmp_path)]
        assert told["arguments"][-4:] == ["--generation-config", "vllm", "--more", f"$(touch {tmp_path}/shell)"]
        assert "--dtype float32" in " ".join(told["arguments"])
        assert all(map(psutil.pid_exists, told["pids"]))
    assert gone(told["pids"])
    assert log.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "shell").exists()


def test_an_engine_ends_with_an_owner_that_is_killed(tmp_path: Path, notes: Path) -> None:
    """Kill the process that started an engine: nobody tells the engine, and it ends with its child."""
    code = (
        "import os, signal\nfrom pathlib import Path\nfrom tests.served.test_engine import backend, running\n"
        f"with running(backend(), Path('.'), 'float32', Path({str(tmp_path / 'log')!r})):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert gone(json.loads(notes.read_text())["pids"])


STUBBORN = """
import os, signal, subprocess, sys, time
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_child_that_does_not_listen_is_killed() -> None:
    """Let a program end at once, and its child in a session of its own ignore that it is asked to."""
    code = (
        "import sys\nfrom safety_harness.served import guard\nguard.SECONDS_TO_END = 1.0\n"
        f"sys.exit(guard.main([sys.executable, '-c', {STUBBORN!r}]))\n"
    )
    program = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert program.stdin is not None
    assert program.stdout is not None
    child = int(program.stdout.readline())
    program.stdin.close()
    program.wait(20)
    program.stdout.close()
    assert gone([child])


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("dies", "The engine ended with exit code 3. It said: ValueError: no kernel for this head. Its log: "),
        ("never", "does not answer within 2 seconds (`start_within`). It said nothing. Its log: "),
    ],
)
def test_an_engine_that_does_not_come_up_is_one_line(tmp_path: Path, notes: Path, mode: str, said: str) -> None:
    with (
        pytest.raises(SourceError) as error,
        running(backend(mode, start_within=2.0 if mode == "never" else 20.0), tmp_path, "float32", tmp_path / "log"),
    ):
        pass
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert gone(json.loads(notes.read_text())["pids"])


def test_a_program_that_is_not_there_is_told_before_anything_loads() -> None:
    with pytest.raises(ConfigError, match="there is no program '/opt/none/vllm'"):
        check_backend(Backend(kind="vllm", command=("/opt/none/vllm", "serve")))
    check_backend(Backend(kind="vllm", url="http://localhost:1/v1", model="m"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('kind = "sglang"', "backend.kind"),
        ('kind = "vllm", url = "http://localhost:8000/v1"', "`url` and `model` go together"),
        ('kind = "vllm", model = "m"', "`url` and `model` go together"),
        ('kind = "vllm", url = "http://x/v1", model = "m", arguments = ["-q"]', "leave out `command` and `arguments`"),
        ('kind = "vllm", comand = ["x"]', "Did you mean 'command'?"),
        ('kind = "vllm", agreement = 2', "backend.agreement"),
        ('kind = "vllm", url = "ftp://x", model = "m"', "must be like http://localhost:8000/v1"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, table: str, message: str) -> None:
    file = write_registry(tmp_path, family("a", {"one": "pass"}, f"backend = {{ {table} }}"))
    with pytest.raises(ConfigError) as error:
        load_registry(file)
    assert message in str(error.value)
