"""python -m steerboard.cli"""

from __future__ import annotations

from steerboard.cli import main

main()
