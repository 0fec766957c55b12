"""The tables of the attacks that a registry file brings: `[attacks.NAME]`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from safety_harness.registry.paths import RegistryPath, Text
from safety_harness.registry.settings import Settings

Rewrite = Literal["leet", "spaced", "noisy", "flipped", "rot13", "base64", "verb_phrase"]


class AttackRow(Settings):
    """A way of asking. `{question}` stands once in its turns, and is the user's last turn where no turn is given."""

    kind: Text = Field("template", description="The idea of the attack. Its name stands for all attacks of this kind.")
    source: Text = Field("the registry", description="Who published the attack.")
    template: RegistryPath | None = Field(
        None, description="A file whose text is the user's last turn, instead of `user`."
    )
    user: Text | None = Field(None, description="The user's last turn. Unset: the question.")
    system: Text | None = Field(None, description="A system turn.")
    before: tuple[tuple[Literal["user", "assistant"], Text], ...] = Field(
        (), description="Turns before the last one, each a role and a text: a user's first, and in turn."
    )
    demonstrations: RegistryPath | None = Field(
        None, description='A file of turns that come first: `{"user": …, "assistant": …}` a line.'
    )
    prefill: Text | None = Field(
        None, description="The first words of the answer. `{object}` is what the question asks for."
    )
    rewrite: Rewrite | None = Field(None, description="What is done to the letters of the question first.")
