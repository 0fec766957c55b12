"""Find attacks by name: those of the package, a user's templates, those of plugins, and PyRIT's.

A plugin names its attacks as entry points of the group ``safety_harness.attacks``, each an ``Attack`` of the same name.
It is imported when one of its attacks is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points

from safety_harness.attacks.attack import Attack
from safety_harness.attacks.builtin import builtin_attacks
from safety_harness.attacks.wheel import Fetch, wheel_attack, wheel_table
from safety_harness.errors import ConfigError, HarnessError, did_you_mean, remark

GROUP = "safety_harness.attacks"


class Catalogue:
    """All attacks that a run may name: the package's, a user's *own*, those of plugins, and PyRIT's by *fetch*.

    Raises:
        ConfigError: two attacks have one name.
    """

    def __init__(self, own: Iterable[Attack] = (), fetch: Fetch | None = None) -> None:
        self._known: dict[str, Attack] = dict(builtin_attacks())
        self._plugins = _plugins()
        self._fetch = fetch
        self._wheel: Iterable[str] = wheel_table()["templates"] if fetch else ()
        for attack in own:
            if attack.name in self.names:
                raise ConfigError(f"There are two attacks of the name {attack.name!r}. Give yours another name.")
            if attack.name in self.kinds:
                raise ConfigError(f"There is a kind of attacks named {attack.name!r}. Give yours another name.")
            self._known[attack.name] = attack

    @property
    def names(self) -> list[str]:
        """The names of all attacks. No plugin is imported for them."""
        return list(dict.fromkeys([*self._known, *self._plugins, *self._wheel]))

    @property
    def kinds(self) -> list[str]:
        """The kinds of the attacks of the package and the user."""
        return list(dict.fromkeys(attack.kind for attack in self._known.values()))

    def get(self, name: str) -> Attack:
        """Return the attack *name*.

        Raises:
            ConfigError: there is none, or its plugin is broken.
            SourceError: its template cannot be fetched.
        """
        if name not in self._known:
            if name in self._plugins:
                self._known[name] = _loaded(self._plugins[name])
            elif self._fetch and name in self._wheel:
                self._known[name] = wheel_attack(name, self._fetch, wheel_table())
            else:
                raise ConfigError(f"There is no attack {name!r}.{did_you_mean(name, [*self.names, *self.kinds])}")
        return self._known[name]

    def select(self, wanted: Iterable[str]) -> list[Attack]:
        """Return the attacks that *wanted* names, each once. A kind stands for all of its attacks that are known.

        Raises:
            ConfigError: a name is neither an attack nor a kind, or a plugin is broken.
        """
        names: dict[str, None] = {}
        for one in wanted:
            members = [name for name, attack in self._known.items() if attack.kind == one]
            names |= dict.fromkeys([one] if one in self.names or not members else [])
            names |= dict.fromkeys(members)
        return [self.get(name) for name in names]

    def all(self) -> list[Attack]:
        """Return all attacks that need no download. A broken plugin is said in one line, and left out."""
        found = []
        for name in [*self._known, *self._plugins]:
            try:
                found.append(self.get(name))
            except HarnessError as error:
                remark(str(error))
        return found


def _plugins() -> Mapping[str, EntryPoint]:
    """Return the entry points of plugins by name.

    Raises:
        ConfigError: two plugins have an attack of the same name, or one has the name of an attack of the package.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        if point.name in builtin_attacks() or found.setdefault(point.name, point) != point:
            raise ConfigError(
                f"The plugin {_of(point)} names an attack {point.name!r}, and there is another one of this name. "
                "Uninstall one of them."
            )
    return found


def _of(point: EntryPoint) -> str:
    """Return the name of the package that has an entry point."""
    return point.dist.name if point.dist else point.value


def _loaded(point: EntryPoint) -> Attack:
    """Import the attack of an entry point.

    Raises:
        ConfigError: it cannot be imported, or is no attack of its name.
    """
    try:
        attack = point.load()
    except Exception as error:  # importing may run anything
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"The plugin {_of(point)} is broken: its attack {point.name!r} cannot be imported ({type(error).__name__}: "
            f"{reason}). Mend or uninstall it."
        ) from error
    if not isinstance(attack, Attack) or attack.name != point.name:
        held = f"one named {attack.name!r}" if isinstance(attack, Attack) else type(attack).__name__
        raise ConfigError(
            f"The plugin {_of(point)} is broken: its entry point {point.name!r} must be an Attack of this name, and is "
            f"{held}. Mend or uninstall it."
        )
    return attack
