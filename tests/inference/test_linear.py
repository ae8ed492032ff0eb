from __future__ import annotations

import pytest
import torch
from torch import nn

from inference.models.kernels import kernels
from inference.models.linear import OneDnnLinear, PackedLinear, PanelLinear, can_pack, joined, pack_linears
from tests.inference.conftest import CACHE

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def layers(dtype: torch.dtype, bias: bool = True) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(24, out, bias=bias, dtype=dtype) for out in (40, 8)]


def own(dtype: torch.dtype):
    """The products of native.c, skipped where the processor lacks what they are made of."""
    found = kernels(dtype, CACHE)
    if found is None or not found.multiplies:
        pytest.skip("no products of our own on this processor")
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 33])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [PanelLinear, OneDnnLinear])
def test_joined_layers_give_what_each_gives_alone(dtype, rows, bias, kind):
    parts = layers(dtype, bias)
    x = torch.randn(rows, 1, 24, dtype=dtype)
    expected = torch.cat([part(x) for part in parts], dim=-1)
    both = joined(parts, own(dtype) if kind is PanelLinear else None)
    assert isinstance(both, kind) and isinstance(both, PackedLinear)
    torch.testing.assert_close(both(x), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64, 32), (65, 2), (17, 30), (300, 500), (31, 64)])
def test_our_products_are_those_of_float64_for_every_number_of_rows(dtype, shape):
    """Outputs that end within a panel, half a panel or a register; 300 x 500 is computed by several threads."""
    torch.manual_seed(1)
    layer = nn.Linear(shape[1], shape[0], dtype=dtype)
    mine = joined([layer], own(dtype))
    assert isinstance(mine, PanelLinear) and torch.equal(mine.weight, layer.weight)
    x = torch.randn(41, shape[1]).to(dtype)
    every = mine(x)
    exact = x.double() @ layer.weight.double().T + layer.bias.double()
    torch.testing.assert_close(every.double(), exact, atol=1e-4 if dtype == torch.float32 else 3e-2, rtol=1e-2)
    for rows in (*range(1, 18), 32, 40):
        assert torch.equal(mine(x[:rows]), every[:rows]), "a row's bits hang on its company"


def test_an_odd_number_of_inputs_is_left_to_onednn():
    layer = nn.Linear(7, 5, dtype=torch.bfloat16)
    assert isinstance(joined([layer], own(torch.bfloat16)), OneDnnLinear)


def test_numbers_that_are_none_stay_in_their_row():
    layer = joined([nn.Linear(64, 64)], own(torch.float32))
    x = torch.ones(9, 64)
    x[4, 3] = float("nan")
    out = layer(x)
    assert out[4].isnan().all() and out[[0, 1, 2, 3, 5, 6, 7, 8]].isfinite().all()


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
