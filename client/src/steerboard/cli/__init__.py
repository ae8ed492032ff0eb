"""The command line `steerboard`. Needs the extra: pip install 'steerboard[cli]'."""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point. What it ends with: see `exits`."""
    try:
        from steerboard.cli.root import run
    except ImportError as missing:
        print(f"The command line lacks {missing.name}. Install it: pip install 'steerboard[cli]'", file=sys.stderr)
        sys.exit(1)
    sys.exit(run(sys.argv[1:]))
