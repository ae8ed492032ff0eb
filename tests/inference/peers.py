"""repeng 0.4.0 names np.float_ in an annotation, which numpy 2 has not: lent to it while it is imported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def repeng() -> Any:
    pytest.importorskip("sklearn")
    lent = not hasattr(np, "float_")
    if lent:
        np.float_ = np.float64  # type: ignore[attr-defined]
    try:
        return pytest.importorskip("repeng", exc_type=ImportError)
    finally:
        if lent:
            del np.float_  # type: ignore[attr-defined]
