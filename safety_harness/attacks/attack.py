"""An attack makes of a question what is asked instead: the same conversation on any machine, for one seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from safety_harness.conversation import Conversation
from safety_harness.errors import ConfigError, HarnessError


@dataclass(frozen=True)
class Misfit:
    """Why an attack does not apply to one question."""

    reason: str


Transform = Callable[[str, int], Conversation | Misfit]
"""Makes of a question and a seed what is sent. It must be pure: no clock, no network, no other source of chance."""


@dataclass(frozen=True)
class Attack:
    """A way of asking.

    *kind* groups attacks of one idea, and *source* names who published it. *content* is everything that *transform*
    depends on, such as its templates and the version of its code.
    """

    name: str
    kind: str
    source: str
    transform: Transform
    content: str

    def sees(self, question: str, seed: int = 0) -> Conversation | Misfit:
        """Return what *question* becomes under this attack. The *seed* and the question decide what is left to chance.

        Raises:
            ConfigError: the transformation fails, or returns something else.
        """
        try:
            seen = self.transform(question, _seed_of(seed, self.name, question))
        except HarnessError:
            raise
        except Exception as error:  # a plugin's code may raise anything
            raise ConfigError(
                f"Attack {self.name!r}: {type(error).__name__} ({error!s:.200}) for the question {question[:60]!r}. "
                "Mend its transformation, or leave the attack out."
            ) from error
        if isinstance(seen, Conversation):
            return replace(seen, attack=self.name)
        if isinstance(seen, Misfit):
            return seen
        raise ConfigError(
            f"Attack {self.name!r}: its transformation returns {type(seen).__name__}, and must return a Conversation "
            "or a Misfit. Mend it, or leave the attack out."
        )

    @property
    def fingerprint(self) -> str:
        """The digest of what decides which conversation a question becomes, whatever the attack is called."""
        return hashlib.sha256(self.content.encode()).hexdigest()


def _seed_of(seed: int, name: str, question: str) -> int:
    """Return a seed of its own for each question under each attack, so that no question depends on its neighbours."""
    return int.from_bytes(hashlib.sha256(json.dumps([seed, name, question]).encode()).digest()[:8], "big")
