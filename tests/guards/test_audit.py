"""`make audit` counts nothing as clean that it could not ask about, and no waiver after its date."""

from __future__ import annotations

import json
from datetime import date

import pytest

from scripts import audit
from scripts.audit import Answer, read_npm, read_pip, read_waivers, tell, vendored

TODAY = date(2026, 11, 21)
FLAW = {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1", "GHSA-x"], "fix_versions": ["2.0"], "description": "x"}
PIP = json.dumps(
    {
        "dependencies": [
            {"name": "safe", "version": "1.0", "vulns": []},
            {"name": "Holed", "version": "1.0", "vulns": [FLAW]},
        ]
    }
)
SKIPPED = json.dumps({"dependencies": [{"name": "odd", "skip_reason": "Dependency not found"}], "fixes": []})
NPM = json.dumps(
    {
        "vulnerabilities": {
            "bootstrap": {
                "range": "<6",
                "via": [{"url": "https://github.com/advisories/GHSA-9", "source": 9}, "other"],
                "fixAvailable": True,
            }
        }
    }
)
REFUSED = json.dumps({"message": "405 Method Not Allowed", "statusCode": 405})


def waiver(until: str, id: str = "CVE-2026-1", package: str = "holed") -> str:
    return json.dumps([{"id": id, "package": package, "reason": "Not reached by us.", "until": until}])


def test_what_is_known_to_be_vulnerable_fails() -> None:
    answer = read_pip(2, PIP, "")
    assert [(a.package, a.ids[0], a.cure) for a in answer.found] == [("Holed", "PYSEC-2026-1", "2.0")]
    assert tell([answer], [], TODAY) == 1


@pytest.mark.parametrize(
    "answer",
    [
        read_pip(1, SKIPPED, ""),
        read_pip(3, "", "ConnectionError"),
        read_pip(3, PIP.replace("[" + json.dumps(FLAW) + "]", "[]"), ""),  # one package is missing from the answer
        read_npm({"bootstrap": "5.3.8"}, REFUSED, ""),
        read_npm({"bootstrap": "5.3.8"}, "", "npm is not installed"),
    ],
)
def test_what_could_not_be_asked_about_is_not_clean(answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer.unknown
    assert tell([answer], [], TODAY) == 2
    assert "not looked up" in capsys.readouterr().out


def test_nothing_found_among_what_was_asked_is_clean() -> None:
    clean = json.dumps({"dependencies": [{"name": "safe", "version": "1.0", "vulns": []}]})
    assert tell([read_pip(1, clean, ""), read_npm({"a": "1"}, '{"vulnerabilities": {}}', "")], [], TODAY) == 0


def test_a_flaw_of_a_vendored_package_is_named() -> None:
    (found,) = read_npm({"bootstrap": "5.3.8"}, NPM, "").found
    assert (found.package, found.version, found.ids) == ("bootstrap", "5.3.8", ("GHSA-9",))


@pytest.mark.parametrize(
    ("waived", "status"),
    [
        (waiver("2026-11-21"), 0),
        (waiver("2026-11-20"), 1),
        (waiver("2027-01-01", id="CVE-0"), 1),
        (waiver("2027-01-01", package="safe"), 1),
    ],
)
def test_a_waiver_counts_for_its_package_until_its_date(waived: str, status: int) -> None:
    assert tell([read_pip(2, PIP, "")], read_waivers(waived), TODAY) == status


def test_a_waiver_needs_a_reason_and_a_date() -> None:
    with pytest.raises(ValueError, match="no reason"):
        read_waivers('[{"id": "x", "package": "y", "reason": " ", "until": "2027-01-01"}]')
    with pytest.raises(ValueError, match="isoformat"):
        read_waivers('[{"id": "x", "package": "y", "reason": "z", "until": "some day"}]')


def test_the_waivers_of_this_repository_are_founded() -> None:
    for each in read_waivers(audit.WAIVERS.read_text()):
        assert len(each.reason) > 20


def test_everything_vendored_comes_from_npm_by_version() -> None:
    manifest = audit.MANIFEST.read_text()
    assert len(vendored(manifest)) == len(json.loads(manifest))
    assert {"bootstrap", "plotly.js-cartesian-dist-min"} <= set(vendored(manifest))


def test_what_comes_with_other_packages_is_asked_about_too() -> None:
    names = {pin.partition("==")[0] for pin in audit.installed()}
    assert {"django", "torch", "kombu"} <= names
    assert not [pin for pin in audit.installed() if "+" in pin]
