from __future__ import annotations

import pytest
import torch
from torch import nn

from inference.models.linear import PackedLinear, can_pack, joined, pack_linears

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def layers(dtype: torch.dtype, bias: bool = True) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(24, out, bias=bias, dtype=dtype) for out in (40, 8)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 33])
@pytest.mark.parametrize("bias", [True, False])
def test_joined_layers_give_what_each_gives_alone(dtype, rows, bias):
    parts = layers(dtype, bias)
    x = torch.randn(rows, 1, 24, dtype=dtype)
    expected = torch.cat([part(x) for part in parts], dim=-1)
    both = joined(parts)
    assert isinstance(both, PackedLinear)
    torch.testing.assert_close(both(x), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def test_one_row_is_computed_as_the_first_of_two_equal_ones():
    layer = joined(layers(torch.float32))
    x = torch.randn(1, 24)
    assert torch.equal(layer(x)[0], layer(x.repeat(2, 1))[0])


def test_the_plain_weight_can_be_had_again():
    (layer, _) = layers(torch.float32)
    assert torch.equal(joined([layer]).weight, layer.weight)


def test_what_cannot_be_packed_is_joined_plainly_or_left_alone():
    parts = layers(torch.float64)
    x = torch.randn(5, 24, dtype=torch.float64)
    both = joined(parts)
    assert type(both) is nn.Linear
    torch.testing.assert_close(both(x), torch.cat([part(x) for part in parts], dim=-1))
    model = nn.Sequential(parts[0])
    pack_linears(model)
    assert model[0] is parts[0]
    assert not can_pack(parts[0].weight)
