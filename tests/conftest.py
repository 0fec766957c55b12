"""Share with all tests a cache of their own, one torch thread, trained models, and a hub on this machine.

What the tests alone need stands here and not at the top of the clone, whose suites a gate runs.

Fixtures import what is heavy themselves, so that the tests of pure rooms start without torch.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.fake_hub import Hub
    from tests.fake_server import Reaction, Server

pytest_plugins = ("pytester",)

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("thorough", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))

# Most tests compare bit for bit with what they compute on the CPU; `make gpu` runs those of the GPU itself. Read by
# torch when it first looks for one.
if "SAFETY_HARNESS_TEST_GPU" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test an empty cache of its own: a user's is never read or written."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SAFETY_HARNESS_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Use one torch thread: tiny matrices only lose by more, and test workers share the cores."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], tuple[Path, Path]]:
    """(architecture, tied) -> folders (student, teacher), made once a session; read only."""
    from tests.builders import make_pair

    made: dict[tuple[str, bool], tuple[Path, Path]] = {}

    def pair(architecture: str, tied: bool = True) -> tuple[Path, Path]:
        key = (architecture, tied)
        if key not in made:
            root = tmp_path_factory.mktemp(architecture)
            made[key] = make_pair(root, architecture, tied=tied)
        return made[key]

    return pair


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of a student and its teachers with their questions, trained once a session; read only."""
    from tests.refusal_world import build

    return build(tmp_path_factory.mktemp("world"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the clients keep what they fetch."""
    return tmp_path / "hf"


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub; the clients know no other, start with nothing cached and hold no token."""
    import datasets
    import huggingface_hub

    from tests.fake_hub import Hub

    hub = Hub()
    # They read the environment when they are imported, and other tests may have done that long ago.
    for name, value in {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "AGENT_HARNESSES_PATH": str(home / "harnesses.json"),
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    for name, value in {
        "HF_ENDPOINT": hub.url,
        "HF_DATASETS_CACHE": home / "datasets",
        "DOWNLOADED_DATASETS_PATH": home / "datasets" / "downloads",
        "HF_HUB_OFFLINE": False,
        # Both ask other servers than the hub.
        "HF_UPDATE_DOWNLOAD_COUNTS": False,
        "USE_PARQUET_EXPORT": False,
    }.items():
        monkeypatch.setattr(datasets.config, name, value)
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    # Between attempts they wait, up to half a minute in all.
    monkeypatch.setattr(time, "sleep", lambda _: None)
    strangers: list[str] = []
    look_up = socket.getaddrinfo

    def look_up_here(host: str, *rest: Any, **options: Any) -> Any:
        if host != "127.0.0.1":
            strangers.append(host)
            raise socket.gaierror(f"{host}: tests ask 127.0.0.1 alone")
        return look_up(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up_here)
    huggingface_hub.close_session()
    yield hub
    huggingface_hub.close_session()
    hub.stop()
    assert not strangers


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Reaction], Server]]:
    """Start servers that answer as a test likes, and let nobody wait long between two attempts."""
    from safety_harness.served import client
    from tests.fake_server import Server

    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    servers: list[Server] = []

    def start(reaction: Reaction) -> Server:
        servers.append(Server(reaction))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
