"""Lines of code per folder, as git sees the tree: files, lines, and the longest file."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COUNTED = {".py", ".js", ".css", ".html"}


def main() -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for path in map(Path, listed.splitlines()):
        if path.suffix in COUNTED and "vendor" not in path.parts and (ROOT / path).exists():
            lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
            folders[folder_of(path)].append((lines, path))
    print(f"{'folder':<28}{'files':>7}{'lines':>8}   longest file")
    for name in sorted(folders):
        print_row(name, folders[name])
    print_row("all", [entry for entries in folders.values() for entry in entries])


def folder_of(path: Path) -> str:
    """The first two folders at most: steering/datasets/starters counts as steering/datasets."""
    return "/".join(path.parts[:-1][:2]) or "."


def print_row(name: str, entries: list[tuple[int, Path]]) -> None:
    lines, path = max(entries)
    print(f"{name:<28}{len(entries):>7}{sum(n for n, _ in entries):>8}   {path} ({lines})")


if __name__ == "__main__":
    main()
