"""Check the bill of materials of a run: every package, nothing of the machine, the same for the same environment."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from safety_harness.cli.main import main
from safety_harness.errors import DataError
from safety_harness.plugin.environment import installed
from safety_harness.report import markdown
from safety_harness.report.sbom import sbom
from tests.samples import run_result, sample_checks


def test_a_bill_holds_every_package_and_nothing_of_the_machine() -> None:
    result = replace(run_result({}), provenance={"environment": installed()})
    bill = json.loads(sbom(result))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    versions = {part["name"]: part["version"] for part in bill["components"]}
    assert versions["torch"] == metadata.version("torch")
    assert versions["huggingface-hub"] == metadata.version("huggingface_hub")
    assert len({part["bom-ref"] for part in bill["components"]}) == len(versions) > 50
    assert "file:" not in sbom(result)
    assert str(Path.home()) not in sbom(result)
    assert "http" not in sbom(result).replace("httpcore", "").replace("httpx", "").replace("aiohttp", "")


def test_the_order_of_packages_changes_nothing_and_a_build_is_named() -> None:
    first, second = {"b": "2.0+cpu", "a": "1"}, {"a": "1", "b": "2.0+cpu"}
    bills = {sbom(replace(run_result({}), provenance={"environment": packages})) for packages in (first, second)}
    (bill,) = bills
    assert [part["purl"] for part in json.loads(bill)["components"]] == ["pkg:pypi/a@1", "pkg:pypi/b@2.0%2Bcpu"]


@pytest.mark.parametrize("environment", [{}, {"environment": {}}, {"environment": "many"}])
def test_a_run_that_recorded_no_packages_has_no_bill(environment: dict[str, object]) -> None:
    with pytest.raises(DataError, match="record no environment"):
        sbom(replace(run_result({}), provenance=environment))


def test_the_command_prints_the_bill_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_result({"alpha/one": sample_checks(9)})
    result = replace(result, provenance={**result.provenance, "environment": {"torch": "2.13.0"}})
    (tmp_path / "results.json").write_text(result.to_json())
    assert main(["report", str(tmp_path / "results.json"), "--sbom"]) == 0
    assert capsys.readouterr().out == sbom(result)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_reports_count_the_packages() -> None:
    result = replace(run_result({}), provenance={"environment": {"torch": "2.13.0", "scipy": "1"}})
    assert "2 packages; safety-harness report --sbom" in markdown(result)
