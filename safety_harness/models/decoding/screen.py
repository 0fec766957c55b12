"""Look at answers while they are generated, so that what decides nothing more is not generated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Screen:
    """A look at each answer after *tokens* tokens: it is cut off there unless its text so far *goes_on*.

    *goes_on* is given the text, and the first words of it that the model was given.

    Once more than *most* answers of a batch are cut off, the remaining answers stop wherever they are.
    """

    tokens: int
    goes_on: Callable[[str, str], bool]
    most: int | None = None
