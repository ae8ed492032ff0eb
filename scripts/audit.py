"""`make audit`: asks the advisory databases about every package that is installed or vendored.

Python's packages, those that come with others included, go to pip-audit; what lies under static/vendor goes to npm, by
the versions of its manifest. A package that could not be asked about is never counted as clean: pip-audit says "no
known vulnerabilities" of a list of which it could look up nothing. What stays on purpose stands in `audit-waivers.json`
with a reason and a date, after which it counts again.

Exit code: 0 clean, 1 something is known to be vulnerable, 2 something could not be asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WAIVERS = ROOT / "audit-waivers.json"
MANIFEST = ROOT / "static" / "vendor" / "manifest.json"
SECONDS = 300
SHOWN = 5


@dataclass(frozen=True)
class Advisory:
    """`ids` are all names under which it is known."""

    package: str
    version: str
    ids: tuple[str, ...]
    cure: str


@dataclass(frozen=True)
class Answer:
    """What an advisory database said of `asked` packages; `unknown` are those it could not be asked about, and why."""

    source: str
    asked: int
    found: tuple[Advisory, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Waiver:
    id: str
    package: str
    reason: str
    until: date


def read_waivers(text: str) -> list[Waiver]:
    """Raises ValueError for one without a reason or a date: then it is no decision."""
    waivers = [
        Waiver(w["id"], w["package"], w["reason"].strip(), date.fromisoformat(w["until"])) for w in json.loads(text)
    ]
    if unfounded := [waiver.id for waiver in waivers if not waiver.reason]:
        raise ValueError(f"These waivers give no reason: {', '.join(unfounded)}.")
    return waivers


def split(found: tuple[Advisory, ...], waivers: list[Waiver], today: date) -> tuple[list[Advisory], list[Advisory]]:
    """(what counts, what is waived)."""
    valid = {(waiver.package.lower(), waiver.id) for waiver in waivers if waiver.until >= today}
    waived = [a for a in found if any((a.package.lower(), id) in valid for id in a.ids)]
    return [a for a in found if a not in waived], waived


# ---- Python ----


def installed() -> list[str]:
    """All packages of this environment, pinned; a build's local version (+cpu) is left out, advisories know none."""
    pins = {dist.metadata["Name"].lower(): dist.version.partition("+")[0] for dist in distributions()}
    return [f"{name}=={version}" for name, version in sorted(pins.items())]


def ask_pip() -> Answer:
    pins = installed()
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "installed.txt"
        listed.write_text("\n".join(pins))
        command = [sys.executable, "-m", "pip_audit", "-r", str(listed), "--no-deps", "--disable-pip", "-f", "json"]
        return read_pip(len(pins), *_output([*command, "--progress-spinner", "off"]))


def read_pip(asked: int, out: str, trouble: str) -> Answer:
    try:
        packages = json.loads(out)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return Answer("pip-audit", asked, unknown=(trouble or "pip-audit gave no answer",) * asked)
    found = [_of_pip(package, flaw) for package in packages for flaw in package.get("vulns", [])]
    unknown = [str(package["skip_reason"]) for package in packages if "skip_reason" in package]
    missing = asked - len(packages)
    return Answer("pip-audit", asked, tuple(found), (*unknown, *["pip-audit left it out"] * missing))


def _of_pip(package: dict[str, Any], flaw: dict[str, Any]) -> Advisory:
    cure = ", ".join(flaw.get("fix_versions", [])) or "no fixed version yet"
    return Advisory(package["name"], package["version"], (flaw["id"], *flaw.get("aliases", [])), cure)


# ---- vendored ----


def vendored(manifest: str) -> dict[str, str]:
    """{name: version} of what npm publishes."""
    sources = [package["source"] for package in json.loads(manifest)]
    named = [source.removeprefix("npm:").rpartition("@") for source in sources if source.startswith("npm:")]
    return {name: version for name, _, version in named}


def ask_npm() -> Answer:
    wanted = vendored(MANIFEST.read_text())
    with tempfile.TemporaryDirectory() as folder:
        package = {"name": "steerboard-vendored", "version": "0.0.0", "private": True, "dependencies": wanted}
        (Path(folder) / "package.json").write_text(json.dumps(package))
        lock = ["npm", "install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund"]
        _, trouble = _output(lock, cwd=folder)
        if not (Path(folder) / "package-lock.json").exists():
            return Answer("npm audit", len(wanted), unknown=(trouble or "npm made no lock file",) * len(wanted))
        return read_npm(wanted, *_output(["npm", "audit", "--json"], cwd=folder))


def read_npm(wanted: dict[str, str], out: str, trouble: str) -> Answer:
    try:
        said = json.loads(out)
        flaws = said["vulnerabilities"]
    except (ValueError, KeyError, TypeError):
        reason = _message(out) or trouble or "npm audit gave no answer"
        return Answer("npm audit", len(wanted), unknown=(reason,) * len(wanted))
    found = [
        Advisory(name, wanted.get(name, flaw.get("range", "")), tuple(_ids(flaw)), str(flaw.get("fixAvailable", "")))
        for name, flaw in flaws.items()
    ]
    return Answer("npm audit", len(wanted), tuple(found))


def _ids(flaw: dict[str, Any]) -> list[str]:
    return [
        str(via.get("url", via.get("source", ""))).rpartition("/")[2] for via in flaw["via"] if isinstance(via, dict)
    ]


def _message(out: str) -> str:
    try:
        return str(json.loads(out)["message"])
    except (ValueError, KeyError, TypeError):
        return ""


def _output(command: list[str], cwd: str | None = None) -> tuple[str, str]:
    """What a command printed, and its last word of complaint."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=SECONDS)
    except FileNotFoundError:
        return "", f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return "", f"{command[0]} gave no answer within {SECONDS} s"
    return done.stdout, (done.stderr.strip().splitlines() or [""])[-1]


# ---- the verdict ----


def tell(answers: list[Answer], waivers: list[Waiver], today: date) -> int:
    for answer in answers:
        counts, waived = split(answer.found, waivers, today)
        known = answer.asked - len(answer.unknown)
        print(f"{answer.source}: {known} of {answer.asked} looked up, {len(counts)} advisories, {len(waived)} waived")
        for advisory in counts:
            print(f"  {advisory.package} {advisory.version}: {', '.join(advisory.ids)}. Fixed in: {advisory.cure}")
        for reason in list(dict.fromkeys(answer.unknown))[:SHOWN]:
            print(f"  not looked up: {reason}")
    for waiver in waivers:
        if waiver.until < today:
            print(f"The waiver of {waiver.id} for {waiver.package} ended on {waiver.until}: {waiver.reason}")
    if any(split(answer.found, waivers, today)[0] for answer in answers):
        return 1
    return 2 if any(answer.unknown for answer in answers) else 0


def main() -> int:
    return tell([ask_pip(), ask_npm()], read_waivers(WAIVERS.read_text()), date.today())


if __name__ == "__main__":
    sys.exit(main())
