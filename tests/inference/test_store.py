from __future__ import annotations

import errno
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from inference.errors import InferenceError, InvalidRequest, NotFound
from inference.store import KEY, VectorStore, content_id, dump, load, seal, summary
from inference.types import AffineMap, Direction, LayerStats, Site, SteeringVector


def vector(**changes):
    rng = np.random.default_rng(1)
    made = SteeringVector(
        id="",
        model="tiny",
        revision="r1",
        directions=tuple(Direction(Site(i), rng.normal(size=8).astype(np.float32)) for i in (2, 10, 1)),
        method="mean_difference",
        read_positions="answer",
        residual_norms={1: 2, 2: 2.5, 10: 3.0},
        stats=(LayerStats(1, 1.0, 2.0, 30.0, 0.9, 2.0, 0.8),),
        recommended_layer=2,
        recommended_strength=0.3,
        reason="Because – it “works”.",
        dataset_digest="d",
        n_pairs=24,
        provenance={"chat": False, "layers": (1, 2), "x": None},
    )
    return seal(replace(made, **changes))


def affine_map(layer=2, rank=3, d=8, seed=4):
    rng = np.random.default_rng(seed)
    read, write = (rng.normal(size=(rank, d)).astype(np.float32) for _ in range(2))
    return AffineMap(Site(layer), read, write, rng.normal(size=rank).astype(np.float32))


def refused(data):
    with pytest.raises(InvalidRequest) as caught:
        load(data)
    return caught.value.code


def rewritten(data, tensors=None, **facts):
    stored = load_tensors(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    changed = {**json.loads(header["__metadata__"][KEY]), **facts}
    return save_tensors({**stored, **(tensors or {})}, metadata={KEY: json.dumps(changed)})


def test_a_vector_comes_back_as_it_was():
    before = vector()
    after = load(dump(before))
    assert [d.site.layer for d in after.directions] == [1, 2, 10]
    np.testing.assert_array_equal(after.at(10).values, before.at(10).values)
    assert summary(after) == summary(before)
    assert dump(after) == dump(before)


def test_the_id_depends_on_content_and_on_nothing_else():
    before = vector()
    assert content_id(replace(before, id="other")) == before.id
    assert vector(residual_norms={10: 3, 2: 2.5, 1: 2.0}).id == before.id
    assert vector(reason="else").id != before.id
    assert vector(directions=tuple(Direction(d.site, d.values * 2) for d in before.directions)).id != before.id


def test_a_changed_vector_cannot_be_stored_under_its_old_id():
    with pytest.raises(InvalidRequest, match="Seal"):
        dump(replace(vector(), reason="else"))


def test_the_summary_has_sites_but_no_values():
    assert summary(vector())["directions"][0] == {"site": {"layer": 1, "point": "resid_post"}}
    json.dumps(summary(vector()), allow_nan=False)


def test_files_that_are_no_vectors_are_refused_by_name():
    assert refused(pickle.dumps({"layer.1": 1})) == "not_safetensors"
    assert refused(b"PK\x03\x04 torch") == "not_safetensors"
    assert refused(b"GGUF....") == "not_safetensors"
    assert refused(b"") == "not_safetensors"
    assert refused(b"\xff" * 64) == "not_safetensors"
    assert refused(dump(vector())[:-5]) == "not_safetensors"
    assert refused(save_tensors({"layer.1": np.ones(3, np.float32)})) == "not_a_vector"
    assert refused(save_tensors({"layer.1": np.ones(3, np.float32)}, metadata={KEY: "[]"})) == "not_a_vector"


def test_edited_files_are_refused():
    data = dump(vector())
    nan = np.full(8, np.nan, np.float32)
    assert load(rewritten(data)).id == vector().id
    assert refused(rewritten(data, model="another")) == "digest_mismatch"
    assert refused(rewritten(data, {"layer.1": np.ones(8, np.float32)})) == "digest_mismatch"
    assert refused(rewritten(data, {"layer.1": nan})) == "bad_vector"
    assert refused(rewritten(data, {"layer.1": np.zeros(8, np.float32)})) == "bad_vector"
    assert refused(rewritten(data, {"layer.1": np.ones(9, np.float32)})) == "bad_vector"
    assert refused(rewritten(data, {"layer.1": np.ones(8, np.float64)})) == "not_a_vector"
    assert refused(rewritten(data, {"weight": np.ones(8, np.float32)})) == "not_a_vector"
    assert refused(rewritten(data, residual_norms={})) == "bad_vector"
    assert refused(rewritten(data, residual_norms={"one": 2.0})) == "invalid_field"
    assert refused(rewritten(data, recommended_layer=5)) == "bad_vector"
    assert refused(rewritten(data, provenance={"x": float("nan")})) == "not_a_vector"
    assert refused(rewritten(data, surprise=1)) == "invalid_field"


def test_the_store_keeps_what_it_is_given(tmp_path):
    store = VectorStore(tmp_path / "vectors")
    data = dump(vector())
    id = store.put(data).id
    assert store.put(data).id == id
    assert store.read(id) == data
    assert store.get(id).reason == vector().reason
    assert [p.name for p in (tmp_path / "vectors").iterdir()] == [f"{id}.safetensors"]


@pytest.mark.parametrize("id", ["0" * 64, "../../etc/passwd", "", "A" * 64])
def test_an_unknown_id_is_not_found(tmp_path, id):
    with pytest.raises(NotFound):
        VectorStore(tmp_path).get(id)


def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InferenceError) as caught:
        VectorStore(tmp_path).put(dump(vector()))
    assert caught.value.code == "disk_full"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "vectors").write_text("a file where the folder should be")
    with pytest.raises(InferenceError) as caught:
        VectorStore(tmp_path / "vectors").put(dump(vector()))
    assert caught.value.code == "storage_failed"


# ---- references and maps, which older files lack ----

STARTERS = Path(__file__).parents[2] / "steering" / "vectors" / "starters"


@pytest.mark.parametrize("path", sorted(STARTERS.glob("*.safetensors")), ids=lambda p: p.stem)
def test_a_vector_made_before_references_and_maps_keeps_its_id(path):
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    id = json.loads(header["__metadata__"][KEY])["id"]
    read = load(data)
    assert read.id == id == content_id(replace(read, id=""))
    assert dump(read) == data


def test_references_and_maps_come_back_and_count_for_the_id():
    plain = vector()
    full = vector(references={2: 1, 10: -0.5}, maps=(affine_map(10, 1), affine_map(2)))
    after = load(dump(full))
    assert after.references == {2: 1.0, 10: -0.5}
    assert [(m.site.layer, m.rank) for m in after.maps] == [(2, 3), (10, 1)]
    for part in ("read", "write", "bias"):
        np.testing.assert_array_equal(getattr(after.maps[0], part), getattr(affine_map(2), part))
    assert summary(after)["maps"][1] == {"site": Site(10).to_wire(), "rank": 1}
    ids = {plain.id, full.id, vector(references={2: 1.5}).id, vector(maps=(affine_map(),)).id}
    assert len(ids | {vector(maps=(affine_map(1),)).id, vector(maps=(affine_map(seed=5),)).id}) == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"references": {3: 1.0}},
        {"references": {2: float("nan")}},
        {"maps": (affine_map(3),)},
        {"maps": (affine_map(), affine_map())},
        {"maps": (affine_map(d=9),)},
        {"maps": (affine_map(rank=17),)},
        {"maps": (replace(affine_map(), bias=np.ones(2, np.float32)),)},
    ],
)
def test_references_and_maps_that_do_not_fit_are_refused(changes):
    with pytest.raises(InvalidRequest) as caught:
        dump(replace(vector(), id="", **changes))
    assert caught.value.code == "bad_vector"


def test_half_a_map_is_no_vector():
    data = dump(vector(maps=(affine_map(),)))
    tensors = {k: v for k, v in load_tensors(data).items() if k != "map.2.bias"}
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    assert refused(save_tensors(tensors, metadata=header)) == "not_a_vector"


def test_a_map_travels_as_json():
    sent = affine_map()
    back = AffineMap.from_wire(json.loads(json.dumps(sent.to_wire())))
    np.testing.assert_array_equal(back.read, sent.read)
    with pytest.raises(InvalidRequest, match="equally long lists"):
        AffineMap.from_wire({**sent.to_wire(), "read": [1.0, 2.0]})
