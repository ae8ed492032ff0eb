"""What the three methods do to the residual stream, held to hooks written by hand, in float64."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from inference.batch import Batch, Row
from inference.compiling import edits_of
from inference.errors import InvalidRequest
from inference.models.loader import LoadedModel
from inference.saes.sources import Sources
from inference.sampling import row_state
from inference.types import Direction, FeatureRef, Intervention, ModelInfo, ReadVector, SamplingParams, Site
from steering.access.principal import Principal
from steering.compat.neuronpedia import asking
from steering.compat.neuronpedia.steer import planning
from steering.compat.neuronpedia.steer.ask import MOST_ITEMS, Method, SteerAsk
from tests.inference import saes
from tests.inference.conftest import make_engine, tiny_folder, tiny_model  # noqa: F401
from tests.inference.driver import start_job

IDS = [0, *range(20, 32), 3, 40, 41]  # BOS at the front, another special token inside
PROMPT_SPECIAL = [0, 13]
METHODS = get_args(Method)
SOURCES = {
    "1-post": "blocks.1.hook_resid_post",
    "2-pre": "blocks.2.hook_resid_pre",
    "1-other": "blocks.1.hook_resid_post",
}


@pytest.fixture
def model(tiny_model: Callable[[str], LoadedModel], tmp_path: Path) -> LoadedModel:  # noqa: F811
    found = tiny_model("llama")
    for seed, (id, hook) in enumerate(SOURCES.items()):
        saes.save("topk" if id == "1-other" else "standard", tmp_path / id, hook=hook, seed=seed)
    found.sources = Sources([tmp_path])
    return found


def ask(method: Method = "SIMPLE_ADDITIVE", **more: Any) -> SteerAsk:
    fields: dict[str, Any] = {
        "prompt": "", "model": "", "normalize": False, "types": ("STEERED",), "items": (), "max_tokens": 6,
        "temperature": 0.0, "multiplier": 1.0, "freq_penalty": 0.0, "seed": 1,
    }  # fmt: skip
    return SteerAsk(method=method, **{**fields, **more})


def vector(seed: int, strength: float, hook: str = "blocks.1.hook_resid_post", size: float = 3.0) -> planning.Target:
    values = np.random.default_rng(seed).normal(size=32).astype(np.float32)
    return planning.Target(strength, direction=Direction(Site.parse(hook), values / np.linalg.norm(values) * size))


def feature(index: int, strength: float, source: str = "1-post") -> planning.Target:
    return planning.Target(strength, FeatureRef(source, index))


def planned(model: LoadedModel, asked: SteerAsk, *targets: planning.Target) -> tuple[Intervention, ...]:
    """As the request's own plan, the engine being asked for decoder rows directly."""

    at_once = 0

    async def answer(who: Principal, job: ReadVector) -> dict[str, Any]:
        from inference.saes.rows import read_vector

        nonlocal at_once
        at_once += 1
        assert at_once == 1, "rows are read one after another"
        await asyncio.sleep(0)
        at_once -= 1
        return list(read_vector(model, job, model.sources))[-1].payload  # type: ignore[union-attr,arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking, "ask", answer)  # which reserves
        return asyncio.run(planning.interventions_of(Principal(None), asked, ModelInfo("ready", model.id), targets))


def row(model: LoadedModel, interventions: tuple[Intervention, ...], tokens: int = 6) -> Row:
    def none(id: str) -> Any:
        raise AssertionError(id)

    state = row_state(SamplingParams(max_tokens=tokens, temperature=0.0), IDS, 0, model.vocab_size)
    return Row(list(IDS), state, edits_of(interventions, model, none))


def run(model: LoadedModel, *all_interventions: tuple[Intervention, ...], steps: int = 4) -> list[torch.Tensor]:
    """resid_post [layers, tokens, d_model] of each row, over the prompt and `steps` tokens that are written."""
    rows, batch = [row(model, each) for each in all_interventions], Batch(model)
    batch.join(rows)
    parts: list[torch.Tensor] = []
    for step in range(steps + 1):
        model.hooks.taken = []
        batch.prefill(1000) if step == 0 else batch.step()
        taken, model.hooks.taken = model.hooks.taken, None
        parts.append(torch.stack(taken))  # type: ignore[arg-type]
    whole = torch.cat(parts, dim=2).double()
    return [whole[:, i] for i in range(len(rows))]


def by_hand(
    model: LoadedModel, edits: list[tuple[int, Callable[[torch.Tensor], torch.Tensor]]], steered: list[bool], steps: int
) -> torch.Tensor:
    """Hugging Face's own forward over all tokens, with `edits` (index of the block, h -> h) at the steered places."""
    ids = list(IDS)
    kept = torch.tensor(steered)[:, None]
    taken: dict[int, torch.Tensor] = {}
    blocks = model.hf.model.layers

    def hook(index: int) -> Any:
        def edited(module: Any, args: Any, output: Any) -> Any:
            h = output[0] if isinstance(output, tuple) else output
            for at, change in edits:
                if at == index:
                    places = torch.cat([kept, torch.ones(h.shape[1] - len(kept), 1, dtype=torch.bool)])
                    h = torch.where(places, change(h), h)
            taken[index] = h[0]
            return (h, *output[1:]) if isinstance(output, tuple) else h

        return edited

    handles = [block.register_forward_hook(hook(i)) for i, block in enumerate(blocks)]
    try:
        with torch.inference_mode():
            for step in range(steps + 1):
                logits = model.hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
                if step < steps:
                    ids.append(int(logits.argmax()))
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([taken[i] for i in range(len(blocks))])


def formula(method: Method, c: float, v: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    u = v / v.norm()

    def change(h: torch.Tensor) -> torch.Tensor:
        along = (h @ u)[..., None]
        if method == "SIMPLE_ADDITIVE":
            return h + c * v
        if method == "ORTHOGONAL_DECOMP":
            return h + (c - 1) * along * u
        return h + (along.clamp(max=c) - along) * u

    return change


def decoder(model: LoadedModel, source: str, index: int) -> torch.Tensor:
    assert model.sources
    return model.sources.get(source, model).rows((index,), torch.float64).decoder[0].float().double()


STRENGTHS = (0.0, 1.0, 2.5, -1.5)


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_each_method_equals_its_formula_at_its_hook(model: LoadedModel, method: Method, special: bool) -> None:
    """Vectors and features, resid_pre and resid_post, in the order sent; every token or all but special prompt ones."""
    targets = [vector(1, 2.5), feature(7, -1.5, "2-pre"), vector(2, 0.5, "blocks.0.hook_resid_post"), feature(3, 4.0)]
    asked = ask(method, special=special)
    (ours,) = run(model, planned(model, asked, *targets))
    edits = []
    for target in targets:
        if target.feature:
            site, v = SOURCES[target.feature.source], decoder(model, target.feature.source, target.feature.index)
        else:
            assert target.direction
            site, v = target.direction.site.hook_name, torch.from_numpy(target.direction.values).double()
        at = Site.parse(site)
        edits.append((at.layer - (at.point == "resid_pre"), formula(method, target.strength, v)))
    steered = [special or place not in PROMPT_SPECIAL for place in range(len(IDS))]
    expected = by_hand(model, edits, steered, steps=4)
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=2e-5)
    (base,) = run(model, ())
    assert (ours[1] - base[1]).abs().max() > 0.1


@pytest.mark.parametrize("c", STRENGTHS)
def test_orthogonal_decomposition_scales_the_component(model: LoadedModel, c: float) -> None:
    target = vector(5, c, size=7.0)
    base, moved = run(model, (), planned(model, ask("ORTHOGONAL_DECOMP"), target), steps=0)
    assert target.direction
    u = torch.from_numpy(target.direction.values).double()
    u = u / u.norm()
    torch.testing.assert_close(moved[1] @ u, c * (base[1] @ u), atol=1e-5, rtol=1e-5)
    rest = [h - (h @ u)[:, None] * u for h in (base[1], moved[1])]
    torch.testing.assert_close(rest[1], rest[0], atol=1e-5, rtol=1e-5)


def test_projection_cap_is_an_upper_bound_and_touches_nothing_below_it(model: LoadedModel) -> None:
    target = vector(6, 0.1)
    base, moved = run(model, (), planned(model, ask("PROJECTION_CAP"), target), steps=0)
    assert target.direction
    u = torch.from_numpy(target.direction.values).double()
    along, after = base[1] @ (u / u.norm()), moved[1] @ (u / u.norm())
    below = along <= 0.1
    assert below.any() and not below.all()
    assert torch.equal(moved[1][below], base[1][below])
    torch.testing.assert_close(after[~below], torch.full_like(after[~below], 0.1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("target", [vector(1, 1.0), feature(7, 1.0), feature(9, 1.0, "1-other")])
def test_the_shift_at_the_hook_is_linear_and_nothing_before_it_moves(model: LoadedModel, target: Any) -> None:
    half, once, both = (dataclasses.replace(target, strength=s) for s in (0.5, 1.0, 1.0))
    base, a, b, c = run(
        model,
        (),
        planned(model, ask(), half),
        planned(model, ask(), once),
        planned(model, ask(), both, vector(3, 2.0)),
        steps=0,
    )
    torch.testing.assert_close(2 * (a[1] - base[1]), b[1] - base[1], atol=1e-12, rtol=1e-12)
    other = run(model, planned(model, ask(), vector(3, 2.0)), steps=0)[0]
    torch.testing.assert_close(c[1] - base[1], (b[1] - base[1]) + (other[1] - base[1]), atol=1e-12, rtol=1e-12)
    assert torch.equal(b[0], base[0])


def test_a_token_that_is_not_steered_reads_nothing_of_later_ones(model: LoadedModel) -> None:
    """Steering spares the special token at the front, which sees only itself: it stays as it was in every layer."""
    base, moved = run(model, (), planned(model, ask(special=False), vector(1, 5.0)), steps=0)
    assert torch.equal(moved[:, 0], base[:, 0])
    assert torch.equal(moved[1, 13], base[1, 13])  # at the hook itself the other special token is left alone too
    assert all((moved[1, place] != base[1, place]).any() for place in range(1, len(IDS)) if place != 13)


def test_rows_of_features_are_read_one_after_another_and_reserved(model: LoadedModel) -> None:
    targets = [feature(index, 1.0) for index in range(4)]
    assert len(planned(model, ask("ORTHOGONAL_DECOMP"), *targets)) == 4


def test_as_many_as_a_request_may_have_fit_one_row_each_of_them_twice(model: LoadedModel) -> None:
    """Sparing special tokens takes two interventions, for the prompt and for what is written."""
    targets = [vector(seed, 1.0) for seed in range(MOST_ITEMS)]
    assert len(row(model, planned(model, ask("PROJECTION_CAP", special=False), *targets)).edits) == 2 * MOST_ITEMS


def test_generated_tokens_are_steered_special_or_not(model: LoadedModel) -> None:
    prompt, generated = planned(model, ask(special=False), vector(1, 1.0))
    assert not prompt.positions.generated and not prompt.positions.special
    assert not generated.positions.prompt and generated.positions.special


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("source", ["1-post", "1-other"])
def test_a_feature_equals_its_decoder_row_as_a_vector(model: LoadedModel, method: Method, source: str) -> None:
    """Also where the SAE would reconstruct the activation badly: its error is kept, since only the row is added."""
    row_of = decoder(model, source, 7).numpy().astype(np.float32)
    same = planning.Target(2.5, direction=Direction(Site.parse(SOURCES[source]), row_of))
    for asked in (ask(method), ask(method, normalize=True)):
        (a,) = run(model, planned(model, asked, feature(7, 2.5, source)))
        (b,) = run(model, planned(model, asked, same))
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)
        if not asked.normalize:
            assert torch.equal(a, b)


@pytest.mark.parametrize("make", [lambda: vector(1, 2.0, size=5.0), lambda: feature(9, 2.0, "1-other")])
def test_normalised_steering_adds_the_strength_in_length(model: LoadedModel, make: Any) -> None:
    base, moved = run(model, (), planned(model, ask(normalize=True), make()), steps=0)
    lengths = (moved[1] - base[1]).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 2.0), atol=1e-6, rtol=0)


def test_a_vector_of_zeros_has_no_unit(model: LoadedModel) -> None:
    zero = planning.Target(1.0, direction=Direction(Site(1), np.zeros(32, np.float32)))
    with pytest.raises(InvalidRequest, match="zero"):
        planned(model, ask(normalize=True), zero)


def test_decoder_rows_are_asked_of_the_engine(make_engine: Any, tmp_path: Path) -> None:  # noqa: F811
    engine = make_engine("llama")
    saes.save("standard", tmp_path / "1-post", hook="blocks.1.hook_resid_post")
    engine.sources = Sources([tmp_path])
    engine._model.sources = engine.sources
    found = start_job(engine, ReadVector("rows", "1-post", 3)).wait().result.payload
    assert found["hook_out"] == "blocks.1.hook_resid_post"
    expected = engine.sources.get("1-post", engine._model).rows((3,)).decoder[0]
    assert torch.equal(torch.tensor(found["decoder"]), expected)


def test_a_hook_that_cannot_be_steered_is_refused_by_name(model: LoadedModel, tmp_path: Path) -> None:
    """What an SAE writes at the MLP's output can be added there, which is exact; its component cannot be scaled."""
    for id, hook in {"1-mlp": "blocks.1.hook_mlp_out", "1-z": "blocks.1.attn.hook_z"}.items():
        saes.save("standard", tmp_path / "more" / id, hook=hook)
    model.sources = Sources([tmp_path / "more"])
    base, moved = run(model, (), planned(model, ask(), feature(5, 2.0, "1-mlp")), steps=0)
    row_of = decoder(model, "1-mlp", 5)
    torch.testing.assert_close(moved[1] - base[1], (2 * row_of).expand_as(base[1]), atol=1e-6, rtol=1e-6)
    with pytest.raises(InvalidRequest, match="hook_mlp_out"):
        planned(model, ask("ORTHOGONAL_DECOMP"), feature(5, 0.0, "1-mlp"))
    with pytest.raises(InvalidRequest, match="hook_z"):
        row(model, planned(model, ask(), feature(5, 2.0, "1-z")))
