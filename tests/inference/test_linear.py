from __future__ import annotations

import pytest
import torch
from torch import nn

from inference.models.linear import MOST_ROWS, FewRowsLinear, speed_up_few_rows


@pytest.mark.parametrize("rows", range(MOST_ROWS + 2))
@pytest.mark.parametrize("bias", [True, False])
def test_few_rows_give_what_a_plain_layer_gives(rows, bias):
    plain = nn.Linear(24, 40, bias=bias)
    fast = nn.Linear(24, 40, bias=bias)
    fast.load_state_dict(plain.state_dict())
    speed_up_few_rows(fast)
    x = torch.randn(rows, 1, 24)
    assert type(fast) is FewRowsLinear
    torch.testing.assert_close(fast(x), plain(x))
    assert fast(x).is_contiguous()


def test_one_row_is_computed_as_the_first_of_two_equal_ones():
    layer = nn.Linear(24, 40)
    speed_up_few_rows(layer)
    x = torch.randn(1, 1, 24)
    assert torch.equal(layer(x)[0], layer(x.repeat(2, 1, 1))[0])


def test_other_dtypes_are_left_alone():
    layer = nn.Linear(24, 40, dtype=torch.float64)
    speed_up_few_rows(layer)
    assert type(layer) is nn.Linear
