"""Read a results.json of this schema or an older one, and refuse one that contradicts itself."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from safety_harness.errors import DataError, first_fault
from safety_harness.gate.recheck import contradiction
from safety_harness.gate.results import SCHEMA, Outcome, RunResult, run_from_table
from safety_harness.gate.upgrade import upgrade, with_known_reds
from safety_harness.reading import MIB, Reader

OLDEST_SCHEMA = 1
_RESULTS = Reader(
    DataError,
    missing="cannot be read as results (no such file). Check the path, or run the suites.",
    advice="Run the suites again.",
    no_json="cannot be read as results",
    at_most=256 * MIB,
)
# From this schema on a file holds the digest of what was measured.
DIGEST_SINCE = 4
# From this schema on a run whose stated failures failed is no pass.
KNOWN_RED_SINCE = 5


def read_results(path: Path) -> RunResult:
    """Read a results.json, decide it again, and return it.

    Raises:
        DataError: missing, cut short, of a newer schema, or a field is missing or wrong. Or the file was changed after
            it was written, or contradicts itself.
    """
    table = _RESULTS.json(path)
    schema_version = table.get("schema") if isinstance(table, dict) else None
    if type(schema_version) is not int or schema_version not in range(OLDEST_SCHEMA, SCHEMA + 1):
        newer = type(schema_version) is int and schema_version > SCHEMA
        advice = "Update safety-harness" if newer else "Run the suites again"
        readable = f"{OLDEST_SCHEMA} to {SCHEMA}"
        raise DataError(f"{path}: schema {schema_version!r}, but this version reads {readable}. {advice}.")
    later = schema_version < DIGEST_SINCE and table.keys() & {"sha256", "remarks"}
    if later or (schema_version < KNOWN_RED_SINCE and table.get("outcome") == Outcome.KNOWN_RED):
        raise DataError(f"{path}: says schema {schema_version}, and holds what only later ones do. It was changed.")
    try:
        if schema_version < 3:
            run_from_table({**table, "incomplete": ()})  # the upgrade needs its shape
            table = upgrade(table)
        run = run_from_table(table)
    except ValidationError as error:
        raise DataError(f"{path}: a field is missing or wrong: {first_fault(error)}. Run the suites again.") from error
    if schema_version >= DIGEST_SINCE and table.get("sha256") != run.sha256:
        raise DataError(
            f"{path}: was changed after it was written: its sha256 says {str(table.get('sha256'))[:64]!r}, and what it "
            f"holds has {run.sha256}. Take the file as the run wrote it, or run the suites again."
        )
    if schema_version < KNOWN_RED_SINCE:
        run = with_known_reds(run)
    if fault := contradiction(run):
        raise DataError(f"{path}: contradicts itself: {fault[:1000]}. Take the file as the run wrote it, or run again.")
    return run
