from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import pytest

from steering.encoding import encoded


class Pair(NamedTuple):
    a: int
    b: str


class Kind(str):
    pass


@pytest.mark.parametrize(
    "value",
    [
        {"t": "token", "s": "Ω\n\u2028 </script>", "lp": -0.1235, "top": [["a", -1e-05], ["b", -99.0]], "none": None},
        {"deep": [{"x": (1, 2, [True, False])}], "seed": 2**63 - 1, "empty": {}},
        {1: "a key that is a number"},
        Pair(1, "x"),
        {"kind": Kind("y"), "value": np.float64(0.25)},
    ],
)
def test_it_reads_as_what_pythons_own_writes(value: Any) -> None:
    assert json.loads(encoded(value)) == json.loads(json.dumps(value))


def test_what_is_no_number_is_null_and_what_is_no_json_is_refused() -> None:
    assert encoded({"x": float("nan")}) == b'{"x":null}'
    with pytest.raises(TypeError, match="object"):
        encoded({"x": object()})
