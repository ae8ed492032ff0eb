from __future__ import annotations

import json

import torch

from inference.saes.found import in_folder
from inference.saes.index import INDEX, CorpusIndex
from inference.saes.sources import SHIPPED

FOLDER = SHIPPED / "9-res-4k"
MOST_BYTES = 25 * 2**20


def test_the_shipped_sae_loads_in_plain_sae_lens_and_is_small():
    from sae_lens import SAE

    sae = SAE.load_from_disk(FOLDER)
    assert type(sae).__name__ == "JumpReLUSAE"
    assert (sae.cfg.d_in, sae.cfg.d_sae, sae.dtype) == (576, 4096, torch.bfloat16)
    assert sae.cfg.metadata.hook_name == "blocks.9.hook_resid_post"
    assert all(bool(torch.isfinite(p).all()) for p in sae.state_dict().values())
    torch.testing.assert_close(sae.W_dec.float().norm(dim=-1), torch.ones(4096), atol=5e-3, rtol=0)
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < MOST_BYTES


def test_it_says_how_it_was_made_and_what_it_is_worth():
    facts = json.loads((FOLDER / "facts.json").read_text())
    assert facts["source"] == FOLDER.name
    assert facts["recipe"]["seed"] == 0
    assert facts["recipe"]["steps"] == facts["trained"]["steps"]
    assert "redistribution permitted" in facts["data"]["description"]["licence"]
    assert facts["explained_variance"] > 0.8
    assert facts["loss_recovered"] > 0.95
    assert facts["dead"] < 0.05
    losses = [loss for _, loss, *_ in facts["curve"]]
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])


def test_it_is_found_with_its_contexts():
    found = in_folder(FOLDER)
    assert not found.problem
    assert (found.id, found.layer, found.width) == ("9-res-4k", 9, 4096)
    index = CorpusIndex.open(FOLDER / INDEX)
    assert index.facts["source"] == FOLDER.name
