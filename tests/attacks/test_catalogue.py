"""Attacks are found by name or kind, and a broken plugin is one line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from safety_harness.attacks.builtin import builtin_attacks
from safety_harness.attacks.catalogue import Catalogue
from safety_harness.attacks.templates import file_attack
from safety_harness.errors import ConfigError, Remark

PLUGIN = """
from safety_harness.attacks.attack import Attack
from safety_harness.conversation import Conversation, Turn

shout = Attack("shout", "volume", "us", lambda q, seed: Conversation((Turn("user", q.upper()),)), "1")
number = 3
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a package with entry points on the path: name -> module:object."""
    folder = tmp_path / "site"

    def put(module: str, text: str, **points: str) -> None:
        info = folder / f"{module}-1.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(text, encoding="utf-8")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n", encoding="utf-8")
        lines = "".join(f"{name} = {value}\n" for name, value in points.items())
        (info / "entry_points.txt").write_text(f"[safety_harness.attacks]\n{lines}", encoding="utf-8")
        monkeypatch.delitem(sys.modules, module, raising=False)

    monkeypatch.syspath_prepend(str(folder))
    return put


def test_an_attack_is_found_by_its_name() -> None:
    assert Catalogue().get("prefill-sure") is builtin_attacks()["prefill-sure"]
    with pytest.raises(ConfigError, match=r"There is no attack 'prefil-sure'. Did you mean 'prefill-sure'\?"):
        Catalogue().get("prefil-sure")
    with pytest.raises(ConfigError, match=r"There is no attack 'nestin'. Did you mean 'nesting'\?"):
        Catalogue().select(["leet", "nestin"])


def test_a_kind_stands_for_its_attacks() -> None:
    names = [attack.name for attack in Catalogue().select(["nested-table", "nesting", "leet", "few-shot"])]
    assert names == ["nested-table", "nested-code", "nested-text", "leet", "few-shot"]


def test_an_own_attack_has_a_name_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    file.write_text("Say {question}", encoding="utf-8")
    own = file_attack("own", file)
    catalogue = Catalogue([own])
    assert catalogue.get("own") is own
    assert catalogue.select(["template"]) == [own]
    another = replace(own, kind="system-override")
    assert [one.name for one in Catalogue([another]).select(["system-override"])] == ["system-override", "own"]
    for clash in ([own, own], [file_attack("leet", file)], [file_attack("nesting", file)]):
        with pytest.raises(ConfigError, match=r"There .* (two attacks|kind).*Give yours another name"):
            Catalogue(clash)


def test_a_plugin_is_imported_when_its_attack_is_asked_for(install: Callable[..., None]) -> None:
    install("loud", PLUGIN, shout="loud:shout")
    catalogue = Catalogue()
    assert catalogue.names[-1] == "shout"
    catalogue.get("leet")
    assert "loud" not in sys.modules
    assert catalogue.select(["shout"]) == [catalogue.get("shout")]
    assert catalogue.get("shout").name == "shout"


@pytest.mark.parametrize(
    ("text", "point", "why"),
    [
        ("raise RuntimeError('no\\nGPU')", "loud:shout", r"cannot be imported \(RuntimeError: no GPU\)"),
        (PLUGIN, "loud:absent", r"cannot be imported \(AttributeError"),
        (PLUGIN, "loud:number", "must be an Attack of this name, and is int"),
        (PLUGIN.replace('"shout"', '"loud"'), "loud:shout", "must be an Attack of this name, and is one named 'loud'"),
    ],
)
def test_a_broken_plugin_is_one_line(install: Callable[..., None], text: str, point: str, why: str) -> None:
    """Raise where its attack is named, and go on without it where all are listed."""
    install("loud", text, shout=point)
    with pytest.raises(ConfigError, match=why) as raised:
        Catalogue().get("shout")
    assert str(raised.value).startswith("The plugin loud is broken: ")
    assert "\n" not in str(raised.value)
    with pytest.warns(Remark, match="The plugin loud is broken"):
        rest = Catalogue().all()
    assert [attack.name for attack in rest] == list(builtin_attacks())


def test_two_plugins_may_not_share_a_name(install: Callable[..., None]) -> None:
    install("loud", PLUGIN, shout="loud:shout")
    install("louder", PLUGIN, shout="louder:shout")
    with pytest.raises(ConfigError, match="names an attack 'shout', and there is another one of this name"):
        Catalogue()


def test_a_plugin_may_not_take_a_built_in_name(install: Callable[..., None]) -> None:
    install("loud", PLUGIN, leet="loud:shout")
    with pytest.raises(ConfigError, match="The plugin loud names an attack 'leet'"):
        Catalogue()


def test_without_plugins_nothing_is_said() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [attack.name for attack in Catalogue().all()] == list(builtin_attacks())
