"""Room in the cache that nobody has written to costs no memory."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch

from inference.cache import KVCache

HEADS, D_HEAD, TOKENS, ROWS = 4, 64, 4096, 64
STATM = Path("/proc/self/statm")


def resident() -> int:
    return int(STATM.read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.skipif(not STATM.exists(), reason="only Linux tells what is resident")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_is_taken_for_what_is_written_and_given_back(dtype: torch.dtype) -> None:
    cache, before = KVCache(), resident()
    new = torch.ones(1, HEADS, TOKENS, D_HEAD, dtype=dtype)
    room = 2 * ROWS * new.nbytes
    cache.extend(slice(0, ROWS), 0, 1, TOKENS)
    cache.open(1, new.new_zeros(0, HEADS, 0, D_HEAD))
    cache.stores(0)
    assert resident() - before < room // 4
    cache.extend(slice(3, 4), 0, TOKENS, TOKENS)
    keys, values = cache.update(new, new, 0)
    assert keys.shape == (1, HEADS, TOKENS, D_HEAD) and keys.eq(1).all() and values.eq(1).all()
    stored = cache.stores(0)
    assert all(part.shape == (ROWS, HEADS, TOKENS, D_HEAD) and part.dtype == dtype for part in stored)
    assert not any(part[[0, 2, 4, ROWS - 1], :, ::512].any() for part in stored), "what is not written to is zero"
    assert resident() - before < room // 4
    del keys, values, stored
    cache.clear()
    assert resident() - before < room // 16


def test_what_was_there_stays_where_the_cache_grows() -> None:
    cache = KVCache()
    wide = torch.arange(2 * HEADS * TOKENS * D_HEAD, dtype=torch.float32).view(2, HEADS, TOKENS, D_HEAD)
    cache.extend(slice(0, 2), 0, TOKENS, TOKENS)
    cache.update(wide, wide, 0)
    cache.extend(slice(0, ROWS), TOKENS, TOKENS + 1, TOKENS + 1)
    last = torch.full((ROWS, HEADS, 1, D_HEAD), 7.0)
    keys, values = cache.update(last, last, 0)
    for part in (keys, values):
        assert torch.equal(part[:2, :, :TOKENS], wide)
        assert part[:, :, TOKENS].eq(7).all() and not part[2:, :, :TOKENS].any()


def test_room_that_no_machine_has_is_refused_as_such() -> None:
    cache = KVCache()
    cache.extend(slice(0, 1), 0, 1, 2**44)
    cache.open(1, torch.zeros(0, HEADS, 0, D_HEAD))
    with pytest.raises(MemoryError, match="no room"):
        cache.stores(0)
