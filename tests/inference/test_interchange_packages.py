"""The other programs' own code adds our directions where our engine adds them, and ours theirs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import steering_vectors
import torch
from transformers import AutoModelForCausalLM

from inference.errors import InvalidRequest
from inference.interchange import read, request_for, write
from inference.interchange.packages import from_repeng, from_steering_vectors, to_repeng, to_steering_vectors
from inference.store import load as load_vector
from inference.types import Direction, Intervention, Result, Site, SteeringVector
from inference.vectors.imports import METHOD, TEXTS, import_vector
from tests.inference import peers
from tests.inference.test_steering_site import IDS, residuals

D, LAYERS = 32, (1, 2, 3)
SCALE = 1.75


def vector_for(layers: tuple[int, ...] = LAYERS) -> SteeringVector:
    numbers = np.random.default_rng(3)
    return SteeringVector(
        id="",
        model="tiny",
        revision="",
        directions=tuple(Direction(Site(i), numbers.normal(size=D).astype(np.float32)) for i in layers),
        method="caa",
        read_positions="last",
        residual_norms=dict.fromkeys(layers, 4.0),
        stats=(),
        recommended_layer=2,
        recommended_strength=0.5,
        reason="",
        dataset_digest="",
        n_pairs=8,
    )


@pytest.fixture
def hugging_face(tiny_folder: Callable[[str], Path]) -> Callable[[str], Any]:
    return lambda family: AutoModelForCausalLM.from_pretrained(tiny_folder(family), dtype=torch.float64).eval()


def hidden_of(model: Any) -> list[torch.Tensor]:
    """What blocks 0 to 2 pass on, read behind the packages' own hooks: transformers may list them before."""
    taken: list[torch.Tensor] = []
    handles = [
        block.register_forward_hook(lambda m, a, out: taken.append((out[0] if isinstance(out, tuple) else out).clone()))
        for block in model.model.layers
    ]
    with torch.no_grad():
        model(torch.tensor([IDS]), use_cache=False)
    for handle in handles:
        handle.remove()
    return [state[0] for state in taken[:3]]


def ours(model: Any, vector: SteeringVector, *layers: int) -> list[torch.Tensor]:
    added = [Intervention(strength=SCALE, directions=(vector.at(layer),)) for layer in layers]
    found, _ = residuals(model, added)
    return list(found[:3])


def same(left: list[torch.Tensor], right: list[torch.Tensor], base: list[torch.Tensor], first: int) -> None:
    """Equal everywhere; unlike the base model from layer `first` on and like it before."""
    for layer in range(3):
        torch.testing.assert_close(left[layer], right[layer], atol=2e-5, rtol=1e-5)
        moved = (left[layer] - base[layer]).abs().max() > 1e-3
        assert bool(moved) == (layer >= first), f"layer {layer}"


# ---- repeng ----


@pytest.mark.parametrize("layer", [1, 2])
def test_repeng_adds_a_gguf_of_ours_where_the_engine_does(
    layer: int, tiny_model: Any, hugging_face: Any, tmp_path: Path
) -> None:
    repeng, vector = peers.repeng(), vector_for()
    base = hidden_of(hugging_face("llama"))
    path = tmp_path / "v.gguf"
    path.write_bytes(write(vector, "gguf", [layer], hint="llama").data)
    control = repeng.ControlVector.import_gguf(path)
    assert control.model_type == "llama" and list(control.directions) == [layer]
    model = hugging_face("llama")
    repeng.ControlModel(model, [layer]).set_control(control, SCALE)
    same(hidden_of(model), ours(tiny_model("llama"), vector, layer), base, layer)


def test_the_engine_adds_a_gguf_of_repeng_where_repeng_does(tiny_model: Any, hugging_face: Any, tmp_path: Path) -> None:
    repeng = peers.repeng()
    directions = {n: np.random.default_rng(n).normal(size=D).astype(np.float32) for n in LAYERS}
    control = repeng.ControlVector("llama", directions)
    control.export_gguf(tmp_path / "v.gguf")
    placed = read((tmp_path / "v.gguf").read_bytes()).placed()
    assert all(np.array_equal(placed.directions[n], directions[n]) for n in LAYERS)
    base, model = hidden_of(hugging_face("llama")), hugging_face("llama")
    repeng.ControlModel(model, [2]).set_control(control, SCALE)
    engine, _ = residuals(
        tiny_model("llama"), [Intervention(strength=SCALE, directions=(Direction(Site(2), placed.directions[2]),))]
    )
    same(hidden_of(model), list(engine[:3]), base, 2)


def test_repengs_objects_there_and_back() -> None:
    repeng, vector = peers.repeng(), vector_for()
    control = to_repeng(vector, (1, 3), model_type="llama")
    assert isinstance(control, repeng.ControlVector) and list(control.directions) == [1, 3]
    loose = from_repeng(control)
    assert loose.model_hint == "llama" and loose.placed().theirs == {1: 1, 3: 3}
    assert np.array_equal(loose.directions[3], vector.at(3).values)
    with pytest.raises(InvalidRequest, match="no layer"):
        from_repeng(repeng.ControlVector("llama", {-1: np.ones(3)}))


def test_a_repeng_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "repeng", None)
    with pytest.raises(InvalidRequest, match="numpy below 2") as refusal:
        to_repeng(vector_for())
    assert refusal.value.code == "package_missing"


# ---- steering-vectors ----


@pytest.mark.parametrize("layers", [(1,), (2,), (1, 2)])
def test_steering_vectors_adds_our_vector_where_the_engine_does(
    layers: tuple[int, ...], tiny_model: Any, hugging_face: Any
) -> None:
    vector, model = vector_for(), hugging_face("llama")
    base = hidden_of(model)
    other = to_steering_vectors(vector, layers)
    with torch.no_grad(), other.apply(model, multiplier=SCALE):
        steered = hidden_of(model)
    same(steered, ours(tiny_model("llama"), vector, *layers), base, layers[0])


def test_steering_vectors_objects_there_and_back() -> None:
    vector = vector_for()
    assert list(to_steering_vectors(vector).layer_activations) == [2]  # apply adds all, so only the recommended one
    loose = from_steering_vectors(to_steering_vectors(vector, LAYERS))
    assert loose.placed().theirs == {n: n for n in LAYERS}
    assert np.array_equal(loose.directions[1], vector.at(1).values)
    with pytest.raises(InvalidRequest, match="decoder_block"):
        from_steering_vectors(steering_vectors.SteeringVector({1: torch.ones(3)}, "mlp"))


# ---- formats whose programs add before the block ----


@pytest.mark.parametrize("format", ["mechanex", "svec"])
def test_formats_of_programs_that_add_before_a_block(format: str, tiny_model: Any, hugging_face: Any) -> None:
    """What Mechanex (hook_resid_pre) and activation-steering (LeashLayer) do, as a pre-hook."""
    vector, model = vector_for(), hugging_face("llama")
    base = hidden_of(model)
    loose = read(write(vector, format, [1], n_layers=4).data)
    (layer,) = loose.directions
    control = torch.from_numpy(loose.directions[layer]).double() * SCALE
    model.model.layers[layer].register_forward_pre_hook(lambda m, args: (args[0] + control, *args[1:]))
    steered = ours(tiny_model("llama"), vector, 1)
    after = hidden_of(model)
    torch.testing.assert_close(after[2], steered[2], atol=2e-5, rtol=1e-5)
    assert (after[2] - base[2]).abs().max() > 1e-3


# ---- the job that keeps an import ----


def imported(model: Any, **given: Any) -> SteeringVector:
    loose = read(write(vector_for(), "gguf", (), hint="llama").data)
    *progress, result = import_vector(model, request_for(loose, id="job", **({"layer": 2} | given)))
    assert isinstance(result, Result) and len(progress) == len(TEXTS)
    return load_vector(result.payload["data"])


def test_an_import_measures_what_a_unit_is_and_invents_nothing(tiny_model: Any) -> None:
    model = tiny_model("llama")
    vector = imported(model, strength=1.5)
    given = vector_for()
    assert all(np.array_equal(vector.at(n).values, given.at(n).values) for n in LAYERS)
    assert (vector.method, vector.stats, vector.n_pairs, vector.recommended_layer) == (METHOD, (), 0, 2)
    assert vector.provenance["imported"]["layers"] == {"1": 1, "2": 2, "3": 3}
    ids = [model.encode_prompt(text) for text in TEXTS]
    rows = [model.residuals(torch.tensor([i]))[2, 0].norm(dim=-1) for i in ids]
    ordinary = torch.cat([r[[t not in model.special_ids for t in i]] for r, i in zip(rows, ids, strict=True)]).numpy()
    kept = ordinary[ordinary <= 8 * np.median(ordinary)]
    assert vector.residual_norms[2] == pytest.approx(float(np.median(kept)))
    length = float(np.linalg.norm(given.at(2).values))
    assert vector.recommended_strength * vector.residual_norms[2] == pytest.approx(1.5 * length, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"values": "AAAA"}, "bad_values"), ({"values": "!"}, "bad_values"), ({"values": ""}, "wrong_size"),
        ({"layers": (1, 2, 9)}, "layer_out_of_range"), ({"layers": (1, 1, 2)}, "bad_layer"),
        ({"layers": (2,)}, "wrong_size"), ({"recommended_layer": 0}, "bad_layer"), ({"layers": ()}, "bad_layer"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model_is_refused(change: dict[str, Any], code: str, tiny_model: Any) -> None:
    from dataclasses import replace

    job = request_for(read(write(vector_for(), "gguf", ()).data), id="job", layer=2)
    with pytest.raises(InvalidRequest) as refusal:
        list(import_vector(tiny_model("llama"), replace(job, **change)))
    assert refusal.value.code == code


def test_an_engine_keeps_what_was_imported(make_engine: Any) -> None:
    from tests.inference.test_engine import start_job

    engine = make_engine()
    job = request_for(read(write(vector_for(), "mechanex", [1, 2], n_layers=4).data), id="job", layer=1)
    result = start_job(engine, job).wait().result
    kept = engine.vectors.get(result.payload["vector"]["id"])
    assert [d.site.layer for d in kept.directions] == [1, 2] and "data" not in result.payload
