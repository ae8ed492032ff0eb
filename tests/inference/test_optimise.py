"""Vectors found by gradient descent, against hand computations, finite differences and the engine itself."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from inference.errors import InferenceError
from inference.store import load
from inference.types import (
    Datapoint,
    GenerationRequest,
    Intervention,
    Message,
    OptimiseVector,
    Positions,
    Progress,
    PromptRead,
    Result,
    SamplingParams,
)
from inference.vectors.optimise import descent as descending
from inference.vectors.optimise.adam import Adam
from inference.vectors.optimise.forms import AffineForm, SphereForm, VectorForm
from inference.vectors.optimise.job import FINISH, optimise_vector
from inference.vectors.optimise.texts import completion, suffix_ids
from tests.inference import tiny
from tests.inference.driver import start, start_job

POINTS = (
    Datapoint("The quick brown fox", promote=(" jumps",), suppress=(" window",)),
    Datapoint("Tabby cats", promote=(" purr in the light", " (A)")),
)
PREFERENCES = (
    Datapoint("The reply is", (" calm and short.",), (" an angry letter",)),
    Datapoint("The fox is", (" near the river.",), (" the dog",)),
)
PROMPTS = (Datapoint("The quick brown fox jumps"), Datapoint("A calm reply turns"))


def asked(points=POINTS, **settings):
    defaults = {"layer": 1, "steps": 6, "max_norm": 1.0}
    return OptimiseVector("job", points, **(defaults | settings))


def run(model, job):
    *progress, result = optimise_vector(model, job)
    assert all(isinstance(event, Progress) for event in progress)
    assert isinstance(result, Result)
    return progress, result.payload


def found(model, points=POINTS, **settings):
    return load(run(model, asked(points, **settings))[1]["data"])


def refusal(model, points=POINTS, **settings):
    with pytest.raises(InferenceError) as caught:
        run(model, asked(points, **settings))
    return caught.value


def values_of(vector):
    return torch.from_numpy(vector.directions[0].values).double()


def by_hand(model, prompt, text, edit, layer=1):
    """Log-probabilities [targets, vocabulary] behind a prompt, by transformers' own model and one hook, and targets."""
    ids = model.encode_prompt(prompt)
    targets = model.tokenizer(text, add_special_tokens=False)["input_ids"]

    def hook(module, args, output):
        hidden = output[0] if isinstance(output, tuple) else output
        edited = edit(hidden)
        return (edited, *output[1:]) if isinstance(output, tuple) else edited

    handle = model.layers[layer].register_forward_hook(hook)
    try:
        with torch.no_grad():
            logits = model.hf(torch.tensor([ids + targets])).logits[0]
    finally:
        handle.remove()
    return logits[len(ids) - 1 : -1].log_softmax(-1), targets


def target_log_p(model, prompt, text, edit, layer=1):
    log_p, targets = by_hand(model, prompt, text, edit, layer)
    return log_p[range(len(targets)), targets]


def promotion_by_hand(model, edit, points=POINTS):
    losses = []
    for point in points:
        losses += [-float(target_log_p(model, point.prompt, text, edit).sum()) for text in point.promote]
        for text in point.suppress:
            losses.append(-float(torch.log(1 - target_log_p(model, point.prompt, text, edit).exp()).sum()))
    return sum(losses) / len(losses)


def edit_of(vector):
    v = values_of(vector)
    u = v / v.norm()
    form = vector.provenance["apply"]["operation"]
    if form == "clamp":
        return lambda h: h + (v.norm() - h @ u)[..., None] * u
    if form == "affine":
        (m,) = vector.maps
        read, write, bias = (torch.from_numpy(x).double() for x in (m.read, m.write, m.bias))
        return lambda h: h + (h @ read.T + bias) @ write
    return lambda h: h + v


# ---- the losses ----


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_loss_falls_and_is_what_a_hook_on_transformers_own_model_gives(plain_model, family):
    model = plain_model(family)
    vector = found(model)
    loss = vector.provenance["loss"]
    assert loss["best"] < loss["start"]
    assert promotion_by_hand(model, edit_of(vector)) == pytest.approx(loss["best"], rel=1e-4)


@pytest.mark.parametrize(("form", "rank"), [("clamp", 1), ("affine", 1), ("affine", 3)])
def test_other_forms_too(plain_model, form, rank):
    model = plain_model("llama")
    vector = found(model, form=form, rank=rank)
    loss = vector.provenance["loss"]
    assert loss["best"] < loss["start"]
    assert promotion_by_hand(model, edit_of(vector)) == pytest.approx(loss["best"], rel=1e-4)
    assert len(vector.maps) == (form == "affine")


def test_bipo_is_the_papers_loss(plain_model):
    model = plain_model("llama")
    vector = found(model, PREFERENCES, method="bipo", beta=0.3)
    v = values_of(vector)

    def ratio(point, text, d):
        steered = target_log_p(model, point.prompt, text, lambda h: h + d * v).sum()
        return float(steered - target_log_p(model, point.prompt, text, lambda h: h).sum())

    losses = []
    for point in PREFERENCES:
        for d in (1, -1):
            margin = ratio(point, point.promote[0], d) - ratio(point, point.suppress[0], d)
            losses.append(math.log1p(math.exp(-d * 0.3 * margin)))
    assert vector.method == "bipo"
    assert np.mean(losses) == pytest.approx(vector.provenance["loss"]["best"], rel=1e-4)
    assert vector.provenance["loss"]["best"] < math.log(2)


def test_melbo_finds_orthogonal_vectors_that_change_a_later_layer_more_than_random_ones(plain_model):
    model = plain_model("llama")
    payload = run(model, asked(PROMPTS, method="melbo", count=3, target_layer=3, seeds=2, steps=15))[1]
    vectors = [load(data) for data in payload["datas"]]
    assert [v["id"] for v in payload["vectors"]] == [v.id for v in vectors]
    raw = torch.stack([values_of(v) for v in vectors])
    unit = raw / raw.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(unit @ unit.T, torch.eye(3, dtype=torch.float64), atol=1e-5, rtol=0)
    norm = vectors[0].residual_norms[1]
    torch.testing.assert_close(raw.norm(dim=-1), torch.full((3,), norm, dtype=torch.float64), rtol=1e-5, atol=0)

    def change(v):
        total = 0.0
        for point in PROMPTS:
            ids = torch.tensor([model.encode_prompt(point.prompt)])
            base = model.residuals(ids)[3]
            handle = model.layers[1].register_forward_hook(lambda m, a, out: out + v)
            steered = []
            probe = model.layers[3].register_forward_hook(lambda m, a, out: steered.append(out))  # noqa: B023
            with torch.no_grad():
                model.hf(ids)
            handle.remove()
            probe.remove()
            total += float((steered[0] - base).norm())
        return total / len(PROMPTS)

    for v, vector in zip(raw, vectors, strict=True):
        assert change(v) == pytest.approx(-vector.provenance["loss"]["best"], rel=1e-4)
    random = torch.randn(20, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    random *= norm / random.norm(dim=-1, keepdim=True)
    assert change(raw[0]) > max(map(change, random))


def test_suppression_has_a_gradient_where_the_token_is_certain():
    from inference.vectors.optimise.objectives import log_not

    logits = torch.tensor([[60.0, 0.0, -1.0]], requires_grad=True)
    value = log_not(logits, torch.tensor([0]))
    assert value.item() == pytest.approx(math.log(1 + math.exp(-1)) - 60, rel=1e-6)
    value.sum().backward()
    assert logits.grad[0, 0].item() == pytest.approx(-1)


# ---- the engine steers at the same place ----


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "gpt_neox"])
@pytest.mark.parametrize("positions", [Positions(), Positions(prompt=False), Positions(generated=False, start=1)])
def test_the_engine_with_the_vector_at_the_layer_gives_the_reported_loss(make_engine, family, positions):
    engine = make_engine(family)
    model = engine.batch.model
    points = (Datapoint("The quick brown fox", (" jumps over the lazy",)), Datapoint("Tabby cats", (" purr when",)))
    listener = start_job(engine, asked(points, positions=positions)).wait()
    vector = engine.vectors.get(listener.result.payload["vector"]["id"])
    losses = {}
    for layer in (0, 1, 2):
        total = 0.0
        for point in points:
            text = completion(model, tuple(model.encode_prompt(point.prompt)), point.promote[0], 1)
            window = positions
            if not positions.prompt:  # all tokens are prompt here, so say which by their place
                window = Positions(start=text.prompt)
            elif not positions.generated:
                window = Positions(start=1, stop=text.prompt)
            edit = Intervention(
                directions=(replace(vector.directions[0], site=replace(vector.directions[0].site, layer=layer)),),
                positions=window,
            )
            sampling = SamplingParams(max_tokens=0, prompt_logprobs=True)
            request = GenerationRequest("r", token_ids=text.whole, sampling=sampling, interventions=(edit,))
            events = start(engine, request).wait().events
            tokens = [t for e in events if isinstance(e, PromptRead) for t in e.tokens]
            total -= sum(t.logprob for t in tokens[text.prompt :])
        losses[layer] = total / len(points)
    reported = vector.provenance["loss"]["best"]
    assert losses[1] == pytest.approx(reported, rel=1e-4)
    assert abs(losses[0] - reported) > 1e-2
    assert abs(losses[2] - reported) > 1e-2
    relative = vector.recommended_strength * vector.residual_norms[1]
    assert relative == pytest.approx(float(np.linalg.norm(vector.directions[0].values)), rel=1e-6)


@pytest.mark.parametrize(("form", "rank"), [("clamp", 1), ("affine", 2)])
def test_the_engines_other_operations_reproduce_what_was_trained_with_them(make_engine, form, rank):
    engine = make_engine("llama")
    listener = start_job(engine, asked(POINTS[:1], form=form, rank=rank)).wait()
    vector = engine.vectors.get(listener.result.payload["vector"]["id"])
    use = vector.provenance["apply"]
    assert use["operation"] == form
    edit = Intervention(use["operation"], use["strength"], use["unit"], vector_id=vector.id, layers=(use["layer"],))
    model = engine.batch.model
    prompt = tuple(model.encode_prompt(POINTS[0].prompt))
    losses = []
    for side, suppressed in ((POINTS[0].promote[0], False), (POINTS[0].suppress[0], True)):
        text = completion(model, prompt, side, 1)
        sampling = SamplingParams(max_tokens=0, prompt_logprobs=True)
        request = GenerationRequest("r", token_ids=text.whole, sampling=sampling, interventions=(edit,))
        events = start(engine, request).wait().events
        log_p = [t.logprob for e in events if isinstance(e, PromptRead) for t in e.tokens][len(prompt) :]
        losses.append(-sum(math.log1p(-math.exp(x)) if suppressed else x for x in log_p))
    assert np.mean(losses) == pytest.approx(vector.provenance["loss"]["best"], rel=1e-4)


# ---- the descent ----


def test_seeds_and_datapoints_in_one_batch_give_what_each_gives_alone(tiny_model):
    model = tiny_model("llama")
    steps = {"steps": 8, "noise": 0.05, "seed": 3}
    _, together = run(model, asked(seeds=3, **steps))
    curves = load(together["data"]).provenance
    alone = []
    for seed in range(3):
        job = asked(seeds=seed + 1, **steps)
        *_, result = optimise_vector(model, job)
        alone.append(load(result.payload["data"]))
    bests = [s["best"] for s in curves["seeds"]]
    for n, vector in enumerate(alone, 1):
        assert [s["best"] for s in vector.provenance["seeds"]] == pytest.approx(bests[:n], rel=1e-6)
    np.testing.assert_allclose(
        alone[-1].directions[0].values, load(together["data"]).directions[0].values, rtol=1e-5, atol=1e-6
    )


def test_many_rows_per_pass_give_what_one_row_gives(tiny_model, monkeypatch):
    model = tiny_model("gemma2")
    monkeypatch.setattr("inference.vectors.optimise.passes.TOKENS_PER_SLICE_CPU", 1)
    one = found(model, seeds=2)
    monkeypatch.setattr("inference.vectors.optimise.passes.TOKENS_PER_SLICE_CPU", 4000)
    many = found(model, seeds=2)
    np.testing.assert_allclose(one.directions[0].values, many.directions[0].values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("clamp", [False, True])
def test_gradients_of_vector_forms_are_those_of_finite_differences(clamp):
    check_gradient(VectorForm(6, 3.0, 2.0, clamp=clamp))


def test_gradients_of_the_affine_form_are_those_of_finite_differences():
    check_gradient(AffineForm(6, 3.0, 2.0, rank=2))


def check_gradient(form):
    generator = torch.Generator().manual_seed(1)
    theta = torch.stack([form.start(generator, 1.0) for _ in range(2)]).requires_grad_()
    h = torch.randn(2, 3, 6, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]], dtype=torch.float64)[..., None]
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64)[:, None, None]
    assert torch.autograd.gradcheck(lambda t: form.edit(h, t, mask, sign), theta)
    untouched = form.edit(h, theta, mask, sign)[mask[..., 0] == 0]
    assert torch.equal(untouched, h[mask[..., 0] == 0])


def test_adam_is_torchs_and_leaves_standing_rows_alone():
    theta = torch.randn(3, 5, dtype=torch.float64)
    theirs = [row.clone().requires_grad_() for row in theta]
    optimisers = [torch.optim.Adam([row], lr=0.1, betas=(0.9, 0.98)) for row in theirs]
    ours, adam = theta.clone(), Adam(theta, 0.1, (0.9, 0.98))
    for step in range(10):
        gradient = torch.sin(ours * (step + 1))
        moving = torch.tensor([True, step % 2 == 0, False])
        for row, optimiser, goes in zip(theirs, optimisers, moving, strict=True):
            if goes:
                row.grad = torch.sin(row.detach() * (step + 1))
                optimiser.step()
        ours = adam.step(ours, gradient, moving)
    torch.testing.assert_close(ours, torch.stack([row.detach() for row in theirs]))
    assert torch.equal(ours[2], theta[2])


def test_the_norm_never_leaves_its_bound(tiny_model):
    model = tiny_model("llama")
    progress, payload = run(model, asked(max_norm=0.3, learning_rate=0.5))
    vector = load(payload["data"])
    unit = vector.residual_norms[1]
    norms = [event.facts["norm"] for event in progress if event.facts]
    assert max(norms) <= 0.3 * unit * (1 + 1e-9)
    assert norms[-1] == pytest.approx(0.3 * unit)
    assert vector.recommended_strength <= 0.3 + 1e-6


def test_rows_of_an_affine_map_keep_their_bounds(tiny_model):
    vector = found(tiny_model("llama"), form="affine", rank=2, max_norm=0.4, learning_rate=0.5)
    (m,) = vector.maps
    unit = vector.residual_norms[1]
    assert np.linalg.norm(m.write, axis=1).max() <= 0.4 * unit * (1 + 1e-5)
    assert np.linalg.norm(m.read, axis=1).max() <= (1 + 1e-5) / unit
    assert np.abs(m.bias).max() <= 1


def test_the_sphere_form_stays_on_its_sphere_and_off_earlier_vectors():
    generator = torch.Generator().manual_seed(0)
    earlier = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    form = SphereForm(6, 3.0, 2.0, earlier)
    theta = form.project(form.start(generator, 2.0)[None])
    step = form.tangent(torch.randn(1, 6, generator=generator, dtype=torch.float64), theta)
    assert (step @ theta.T).abs().max() < 1e-9
    assert (step @ earlier.T).abs().max() < 1e-9
    assert form.norms(form.project(theta + step)).item() == pytest.approx(2.0)


def test_a_target_loss_ends_a_seed_early_and_the_square_stays_at_the_target(tiny_model):
    model = tiny_model("llama")
    start_loss = found(model, steps=1).provenance["loss"]["start"]
    target = start_loss * 0.9
    stopped = found(model, steps=60, target_loss=target).provenance
    assert stopped["loss"]["best"] <= target
    assert stopped["seeds"][0]["steps"] < 60
    points = (Datapoint("Tabby cats", (" purr",)),)
    free = found(model, points, steps=60).provenance["loss"]
    target = (free["start"] + free["best"]) / 2
    square = found(model, points, steps=60, target_loss=target, satisfice="square").provenance["loss"]
    assert square["best"] == pytest.approx(target, abs=0.05)
    assert free["best"] < target - 0.5


def test_minibatches_see_every_datapoint_and_are_judged_on_all(plain_model):
    model = plain_model("llama")
    vector = found(model, batch=1, steps=12)
    assert promotion_by_hand(model, edit_of(vector)) == pytest.approx(vector.provenance["loss"]["best"], rel=1e-4)
    assert vector.provenance["loss"]["step"] in (0, 5, 10, 12)


def test_reversed_datapoints_are_steered_the_other_way(plain_model):
    model = plain_model("llama")
    points = (Datapoint("Tabby cats", (" purr",)), Datapoint("Tabby cats", (" jump",), reverse=True))
    vector = found(model, points)
    v = values_of(vector)
    there = -float(target_log_p(model, "Tabby cats", " purr", lambda h: h + v).sum())
    back = -float(target_log_p(model, "Tabby cats", " jump", lambda h: h - v).sum())
    assert (there + back) / 2 == pytest.approx(vector.provenance["loss"]["best"], rel=1e-4)


def test_the_bounded_phase_holds_the_kl(plain_model):
    model = plain_model("llama")
    text = "A calm reply turns an angry letter."
    free = found(model, steps=20)
    vector = found(model, steps=20, kl_texts=(text,), max_kl=0.02, kl_steps=60)

    def kl(vector):
        v = values_of(vector)
        ids = torch.tensor([model.encode_prompt(text)])
        with torch.no_grad():
            base = model.hf(ids).logits[0].log_softmax(-1)
            handle = model.layers[1].register_forward_hook(lambda m, a, out: out + v)
            steered = model.hf(ids).logits[0].log_softmax(-1)
            handle.remove()
        return float((steered.exp() * (steered - base)).sum(-1).mean())

    assert kl(free) > 0.02
    assert kl(vector) == pytest.approx(vector.provenance["kl"], rel=1e-3)
    assert kl(vector) <= 0.02 * (1 + 1e-3)
    loss = vector.provenance["loss"]
    assert loss["best"] < loss["start"]
    assert promotion_by_hand(model, edit_of(vector)) == pytest.approx(loss["best"], rel=1e-4)


def test_a_kl_bound_that_cannot_be_met_is_refused_with_a_cure(tiny_model):
    error = refusal(tiny_model("llama"), steps=2, kl_steps=1, kl_texts=("A calm reply",), max_kl=1e-9)
    assert error.code == "kl_bound_not_met"
    assert "Allow more" in error.message


# ---- stopping ----


def test_finish_ends_with_the_best_so_far(make_engine):
    engine = make_engine()
    listener = start_job(engine, asked(steps=2000))
    while not (listener.take().facts or {}).get("curve"):  # type: ignore[union-attr]
        pass
    engine.finish("job")
    payload = listener.wait().result.payload
    vector = engine.vectors.get(payload["vector"]["id"])
    assert 0 < vector.provenance["seeds"][0]["steps"] + 1 < 2000
    assert vector.provenance["loss"]["best"] <= vector.provenance["loss"]["start"]


def test_finish_keeps_the_vectors_that_melbo_has(tiny_model):
    steps = optimise_vector(tiny_model("llama"), asked(PROMPTS, method="melbo", count=5, steps=10))
    event = next(steps)
    while event.facts.get("vector", 0) < 1:
        event = next(steps)
    event = steps.send(FINISH)
    while isinstance(event, Progress):
        event = next(steps)
    assert len(event.payload["datas"]) == 2


def test_a_cancelled_job_ends_at_once_and_lets_go_of_the_view(make_engine):
    engine = make_engine()
    listener = start_job(engine, asked(steps=2000))
    while not listener.take().facts:  # type: ignore[union-attr]
        pass
    engine.cancel("job")
    assert listener.wait().failed.code == "cancelled"
    from inference.models import plain

    assert all(opening.users == 0 for openings in plain._kept.values() for opening in openings.values())


def test_streams_go_on_while_a_vector_is_optimised(make_engine):
    engine = make_engine()
    job = start_job(engine, asked(steps=2000))
    while not job.take().facts:  # type: ignore[union-attr]
        pass
    sampling = SamplingParams(max_tokens=20, seed=1, ignore_eos=True)
    assert len(start(engine, GenerationRequest("r", token_ids=(5, 6, 7), sampling=sampling)).wait().tokens) == 20
    engine.cancel("job")
    assert job.wait().failed.code == "cancelled"


# ---- what is refused ----


def test_a_loss_that_grows_is_refused_with_the_best_so_far(tiny_model, monkeypatch):
    step = descending.Adam.step
    monkeypatch.setattr(  # uphill
        descending.Adam, "step", lambda self, theta, gradient, moving: step(self, theta, -gradient, moving)
    )
    error = refusal(tiny_model("llama"), steps=200, max_norm=20.0)
    assert error.code == "optimisation_diverged"
    assert "Lower the learning rate" in error.message
    assert "best loss until then" in error.message


def test_a_loss_that_is_undefined_is_refused(tiny_model, monkeypatch):
    monkeypatch.setattr(
        descending.Adam, "step", lambda self, theta, gradient, moving: torch.full_like(theta, float("nan"))
    )
    error = refusal(tiny_model("llama"))
    assert error.code == "optimisation_diverged"
    assert "undefined at step 1" in error.message


def test_a_seed_that_diverges_does_not_take_the_others_with_it(tiny_model, monkeypatch):
    step = descending.Adam.step

    def break_first(self, theta, gradient, moving):
        moved = step(self, theta, gradient, moving)
        moved[0] = float("nan")
        return moved

    monkeypatch.setattr(descending.Adam, "step", break_first)
    provenance = found(tiny_model("llama"), seeds=2).provenance
    assert provenance["seed"] == 1
    assert "undefined" in provenance["seeds"][0]["trouble"]


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"points": ()}, "no_datapoints"),
        ({"points": (Datapoint("x"),)}, "no_target"),
        ({"points": (Datapoint("x", (" a",), (" a",)),)}, "contradiction"),
        ({"points": (Datapoint("x", ("",)),)}, "empty_completion"),
        ({"points": (Datapoint("fox " * 200, (" a",)),)}, "text_too_long"),
        ({"method": "bipo"}, "not_a_preference"),
        ({"method": "bipo", "points": (Datapoint("x", (" a",), (" a",)),)}, "identical_sides"),
        ({"layer": 4}, "layer_out_of_range"),
        ({"layer": 3, "method": "melbo"}, "target_layer_out_of_range"),
        ({"method": "melbo", "form": "clamp"}, "form_not_offered"),
        ({"method": "melbo", "target_loss": 1.0}, "no_loss_to_reach"),
        ({"count": 2}, "one_vector_only"),
        ({"rank": 2}, "rank_not_used"),
        ({"form": "affine", "rank": 17}, "out_of_range"),
        ({"steps": 100_000}, "out_of_range"),
        ({"learning_rate": -1.0}, "out_of_range"),
        ({"noise": -0.1}, "out_of_range"),
        ({"init_norm": 2.0}, "out_of_range"),
        ({"norm_unit": "raw", "max_norm": None}, "norm_missing"),
        ({"satisfice": "square"}, "target_missing"),
        ({"kl_steps": 3}, "kl_texts_missing"),
        ({"kl_texts": ("fox " * 1000,)}, "kl_texts_too_long"),
        ({"positions": Positions(start=100)}, "nothing_touched"),
    ],
)
def test_nonsense_is_refused(shared_model, settings, code):
    points = settings.get("points", POINTS)
    error = refusal(shared_model, points, **{k: v for k, v in settings.items() if k != "points"})
    assert error.code == code
    assert error.message.endswith(".")


@pytest.fixture(scope="module")
def shared_model(tiny_model):
    return tiny_model("llama")


# ---- texts and facts ----


def test_completions_are_tokenised_behind_the_prompt_not_with_it(tiny_model):
    model = tiny_model("llama")
    whole = tiny.SENTENCES[0]
    together = tuple(model.encode_prompt(whole))
    merged = 0
    for cut in range(1, len(whole)):
        prompt = tuple(model.encode_prompt(whole[:cut]))
        text = completion(model, prompt, whole[cut:], 1)
        assert text.whole[: len(prompt)] == prompt
        assert model.tokenizer.decode(text.targets) == whole[cut:]
        assert text.ids == prompt + text.targets[:-1]
        merged += together[: len(prompt)] != prompt
    assert merged  # somewhere the two tokenised together share a token


def test_a_tokenizer_that_puts_a_space_first_is_not_believed():
    class Spacey:
        def __call__(self, text, add_special_tokens):
            return {"input_ids": [ord(c) for c in " " + text]}

    assert suffix_ids(Spacey(), "ab") == (ord("a"), ord("b"))


def test_chat_prompts_go_through_the_template(tiny_model):
    model = tiny_model("llama")
    vector = found(model, (Datapoint("Hello", (" yes",)),), chat=True, steps=1)
    ids = model.encode_chat([Message("user", "Hello")])
    targets = model.tokenizer(" yes", add_special_tokens=False)["input_ids"]
    assert vector.provenance["tokens"] == 3 * (len(ids) + len(targets) - 1)  # unsteered, one step, one last look


def test_progress_carries_the_curve(tiny_model):
    progress, payload = run(tiny_model("llama"), asked(seeds=2, steps=5))
    facts = [event.facts for event in progress if event.facts]
    last = facts[-1]
    assert [step for step, _ in last["curve"]] == list(range(last["step"] + 1))
    assert len(last["seeds"]) == 2
    assert last["steps"] == 5
    assert {event.total for event in progress} == {5}
    provenance = load(payload["data"]).provenance
    assert provenance["curve"][-1][0] == 5
    assert min(loss for _, loss in provenance["curve"]) == pytest.approx(provenance["loss"]["best"], abs=1e-4)


def test_the_same_job_gives_the_same_vector(tiny_model):
    model = tiny_model("llama")
    assert found(model, noise=0.1).id == found(model, noise=0.1).id
