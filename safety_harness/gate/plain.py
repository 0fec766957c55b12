"""Turn values into plain ones, which survive every transport, and plain values into records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from safety_harness.errors import first_fault

Model = TypeVar("Model", bound=BaseModel)


def plain(value: Any) -> Any:
    """Return *value* in exact built-in types, which survive pytest-xdist's transport.

    A float subclass (numpy's among them) in a test's properties breaks a worker, so nothing else may pass.
    """
    match value:
        case None | bool():
            return value
        case tuple() | list():
            return [plain(item) for item in value]
        case str():
            return str(value).encode("utf-8", "replace").decode()  # half of a character is no JSON
        case int():
            return int(value)
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case BaseModel():
            return value.model_dump(mode="json")
        case float():
            return float(value) if math.isfinite(value) else None  # JSON has no other numbers
        case _ if hasattr(value, "tolist"):  # numpy's and torch's scalars and arrays, each of its own kind
            return plain(value.tolist())
        case _:
            return float(value)


def record(kind: type[Model], facts: Mapping[str, Any] | BaseModel, what: str) -> Model:
    """Return *facts* as a record of *kind*.

    Raises:
        ValueError: *what* has a value that such a record cannot have.
    """
    if type(facts) is kind:
        return facts
    try:
        return kind.model_validate(plain(facts))
    except ValidationError as error:
        raise ValueError(f"{what}: {first_fault(error)}") from None
