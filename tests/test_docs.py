"""The documents cannot drift from the code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from benchmarks import readme

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text("utf-8")
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
# Paths of the machine it was written on, and hosts of package registries, written so that this file holds none.
FORBIDDEN = re.compile(
    "|".join(["/wor" + "k/", "/tm" + "p/sb", r"pypi\.o" + "rg", r"registry\.npm" + "js", r"download\.pyto" + "rch"])
)


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout, so there is no list of files")
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_make_command_in_a_document_exists(document: Path) -> None:
    named = set(re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", document.read_text("utf-8"), re.MULTILINE))
    assert {a or b for a, b in named} <= TARGETS


def test_make_help_lists_what_readme_names() -> None:
    helped = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"run", "demo", "test", "check", "size", "bench", "starters", "clean"} <= set(
        re.findall(r"make ([a-z-]+)", helped)
    )


def test_readme_lists_exactly_the_settings_there_are() -> None:
    read = set(re.findall(r"env\.\w+\(\s*\"([A-Z_]+)\"", (ROOT / "webapp/settings.py").read_text()))
    read |= set(re.findall(r"environment\(\"([A-Z_]+)\"", (ROOT / "inference/worker.py").read_text()))
    for source in (ROOT / "inference").rglob("*.py"):
        read |= set(re.findall(r"(?:os\.environ|environment)\.get\(\"([A-Z_]+)\"", source.read_text()))
    listed = set(re.findall(r"^\| `([A-Z_]+)` \|", README, re.MULTILINE))
    assert listed == read


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_local_link_leads_somewhere(document: Path) -> None:
    text = document.read_text("utf-8")
    links = re.findall(r"\]\(([^)#\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
    local = {a or b for a, b in links if "://" not in (a or b)}
    assert [link for link in local if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    named = re.findall(
        r"`((?:inference|steering|webapp|tests|benchmarks|scripts|docs|static)/[\w/.-]*)`", document.read_text("utf-8")
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_trees_folders_exist() -> None:
    tree = README.split("```\nmanage.py", 1)[1].split("```", 1)[0]
    folders = re.findall(r"^([a-z]+/)", tree, re.MULTILINE)
    assert folders
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []


def test_readme_shows_the_recorded_results() -> None:
    assert readme.rendered() in README


def test_no_file_names_a_registry_or_the_machine_it_was_written_on() -> None:
    texts = (
        p for p in tracked() if p.suffix not in {".png", ".safetensors", ".woff2", ".ico"} and "vendor" not in p.parts
    )
    found = {str(p.relative_to(ROOT)) for p in texts if FORBIDDEN.search(p.read_text("utf-8", errors="ignore"))}
    assert found == set()
