from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from steering_vectors import SteeringVectorTrainingSample, record_activations, train_steering_vector
from transformer_lens.model_bridge import TransformerBridge

from inference.errors import InvalidRequest
from inference.store import load
from inference.types import CreateVector, Pair, Progress, Result, Site
from inference.vectors.extract import create_vector
from inference.vectors.pooling import Pooler
from inference.vectors.slices import Part, shared, slices, stops, whole
from inference.vectors.spans import Reading

PAIRS = (
    Pair(" calm and short.", " an angry letter, long and loud.", "The reply is"),
    Pair(" purr in the light.", " jump over the dog.", "Tabby cats"),
    Pair(" warm", " quick", "The window is"),
    Pair(" yes (no).", " no", "Question: is it yes or no? Answer:"),
    Pair(" near the river.", " near the sill, by the morning.", "The fox is"),
    Pair(" the lazy dog", " a brown bank", "It is"),
)
LETTERS = tuple(Pair(" (A)", " (B)", f"Question: {p.prompt} (A){p.positive} (B){p.negative} Answer:") for p in PAIRS)


def build(model, pairs=PAIRS, **settings):
    *progress, result = create_vector(model, CreateVector("job", pairs, **settings))
    assert all(isinstance(event, Progress) for event in progress)
    assert isinstance(result, Result)
    return load(result.payload["data"])


def refused(model, pairs=PAIRS, **settings):
    with pytest.raises(InvalidRequest) as caught:
        build(model, pairs, **settings)
    return caught.value


def theirs(model, pairs, index=-1):
    """Directions by the steering-vectors package, which runs one text at a time."""
    samples = [SteeringVectorTrainingSample(p.prompt + p.positive, p.prompt + p.negative, index, index) for p in pairs]
    return train_steering_vector(model.hf, model.tokenizer, samples).layer_activations


def assert_equal(vector, expected):
    assert [d.site.layer for d in vector.directions] == sorted(expected)
    for direction in vector.directions:
        np.testing.assert_allclose(direction.values, expected[direction.site.layer].numpy(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox", "gpt2"])
def test_last_token_differences_equal_those_of_steering_vectors(tiny_model, family):
    model = tiny_model(family)
    assert_equal(build(model, pooling="last"), theirs(model, PAIRS))


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox"])
def test_caa_on_letters_equals_steering_vectors_reading_the_token_before_the_bracket(tiny_model, family):
    model = tiny_model(family)
    assert_equal(build(model, LETTERS, method="caa"), theirs(model, LETTERS, index=-2))


def test_caa_on_words_equals_steering_vectors_reading_the_last_token(tiny_model):
    model = tiny_model("llama")
    assert_equal(build(model, method="caa"), theirs(model, PAIRS))


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox"])
def test_mean_pooling_equals_means_over_what_steering_vectors_records(tiny_model, family):
    model = tiny_model(family)
    total: dict[int, torch.Tensor] = {}
    for pair in PAIRS:
        for side, sign in ((pair.positive, 1), (pair.negative, -1)):
            n = len(model.tokenizer.tokenize(side))
            with record_activations(model.hf) as record, torch.no_grad():
                model.hf(model.tokenizer(pair.prompt + side, return_tensors="pt").input_ids)
            for layer, (acts,) in record.items():
                total[layer] = total.get(layer, 0) + sign * acts[0, -n:].mean(dim=0) / len(PAIRS)
    assert_equal(build(model), total)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox"])
def test_layers_are_numbered_as_by_transformer_lens(tiny_model, plain_model, tiny_folder, family):
    vector = build(tiny_model(family), pooling="last")
    other = plain_model(family)
    bridge = TransformerBridge.boot_transformers(
        str(tiny_folder(family)), hf_model=other.hf, tokenizer=other.tokenizer, dtype=torch.float64, device="cpu"
    )
    for layer in (0, 2, 3):
        name, total = Site(layer).hook_name, 0
        for pair in PAIRS:
            for text, sign in ((pair.prompt + pair.positive, 1), (pair.prompt + pair.negative, -1)):
                ids = torch.tensor([other.tokenizer(text)["input_ids"]])
                total = total + sign * bridge.run_with_cache(ids, names_filter=name)[1][name][0, -1] / len(PAIRS)
        np.testing.assert_allclose(vector.at(layer).values, total.detach().numpy(), atol=1e-4, rtol=1e-4)


def test_the_same_pairs_give_the_same_bytes(tiny_model):
    first, second = build(tiny_model("llama")), build(tiny_model("llama"))
    assert first.id == second.id
    assert build(tiny_model("llama"), span="all").id != first.id


def test_the_facts_of_the_vector_are_those_of_the_job(tiny_model):
    model = tiny_model("llama")
    vector = build(model, layers=(3, 1, 1), chat=True, dataset_digest="abc")
    assert [d.site.layer for d in vector.directions] == [1, 3] == [s.layer for s in vector.stats]
    assert (vector.n_pairs, vector.dataset_digest, vector.model) == (6, "abc", model.id)
    assert vector.recommended_layer == 1
    assert vector.provenance["chat_template_sha256"]
    for direction, stat in zip(vector.directions, vector.stats, strict=True):
        assert stat.norm == pytest.approx(np.linalg.norm(direction.values), rel=1e-5)
        assert 0 <= stat.auc <= 1
        assert vector.residual_norms[stat.layer] == stat.residual_norm


def test_a_chat_template_changes_the_vector_only_where_there_is_a_prompt(tiny_model):
    model = tiny_model("llama")
    bare = tuple(Pair(p.positive, p.negative) for p in PAIRS)
    assert not np.allclose(build(model, chat=True).at(1).values, build(model).at(1).values)
    np.testing.assert_array_equal(build(model, bare, chat=True).at(1).values, build(model, bare).at(1).values)


def test_progress_only_grows_ends_at_the_total_and_estimates(tiny_model):
    *progress, result = create_vector(tiny_model("llama"), CreateVector("job", PAIRS))
    done = [p.done for p in progress]
    assert done == sorted(done)
    assert done[-1] == progress[-1].total == 2 * len(PAIRS) + 4
    assert [e.seq for e in (*progress, result)] == list(range(len(progress) + 1))
    assert all(p.eta_seconds >= 0 for p in progress if "Ran" in p.note)
    assert "values" not in str(result.payload["vector"])


def reading(*ids, at=None):
    return Reading(ids, (len(ids) - 1 if at is None else at,))


def test_padded_slices_keep_their_budget_and_take_every_text_once():
    readings = [Reading(tuple(range(n)), (0,)) for n in (5, 200, 40, 41, 7, 6, 5)]
    made = list(slices(readings, whole(readings), lambda: 96, padded=True))
    assert [part.text for part in made[0]] == [1]
    assert sorted(part.text for parts in made for part in parts) == list(range(7))
    assert all(len(parts) * max(len(readings[p.text].ids) for p in parts) <= 96 for parts in made[1:])


def test_what_texts_begin_with_is_read_once():
    readings = [reading(1, 2, 3, 4, 5), reading(9, 9), reading(1, 2, 3, 4, 6, 7), reading(1, 2, 8)]
    assert shared(readings) == [Part(2, 0), Part(3, 2), Part(1, 0), Part(0, 0)]
    assert [[p.text for p in s] for s in slices(readings, shared(readings), lambda: 7, padded=False)] == [
        [2, 3],
        [1, 0],
    ]


def test_a_token_that_is_pooled_is_never_left_out():
    twins = [reading(1, 2, 3), reading(1, 2, 3, at=1)]
    assert [part.start for part in shared(twins)] == [0, 1]
    assert shared([reading(4), reading(4)]) == [Part(0, 0), Part(1, 0)]


def pooled(norms_by_token, positions, ids=None, special=frozenset()):
    """Pool one text whose residuals at its only layer are norm x a unit vector."""
    residuals = torch.tensor(norms_by_token, dtype=torch.float32)[:, None] * torch.tensor([0.6, 0.8])
    pooler = Pooler([Reading(tuple(ids or range(len(norms_by_token))), tuple(positions))], (0,), 2, special)
    assert list(pooler.add([residuals], [0], [0])) == []
    return pooler


def test_an_attention_sink_is_left_out_of_the_mean_and_of_the_residual_norm():
    pooler = pooled([5000.0, 10.0, 12.0, 14.0], [0, 1, 2, 3])
    assert np.linalg.norm(pooler.features[0, 0]) == pytest.approx(12.0)
    assert pooler.residual_norms[0] == pytest.approx(12.0)
    assert pooler.sink_norms[0] == pytest.approx(5000.0)


def test_special_tokens_count_for_the_largest_norm_only():
    pooler = pooled([60.0, 10.0, 12.0, 14.0], [1, 2, 3], ids=[9, 1, 2, 3], special=frozenset([9]))
    assert pooler.residual_norms[0] == pytest.approx(12.0)
    assert pooler.sink_norms[0] == pytest.approx(60.0)


def test_where_only_a_sink_can_be_read_it_is_read_and_counted():
    pooler = pooled([5000.0, 10.0, 12.0, 14.0], [0])
    assert np.linalg.norm(pooler.features[0, 0]) == pytest.approx(5000.0)
    assert pooler.sink_reads.tolist() == [1]


@pytest.mark.parametrize("pairs", [1, 3])
def test_few_pairs_make_a_vector_where_that_is_said(tiny_model, pairs):
    *_, result = create_vector(tiny_model("llama"), CreateVector("job", PAIRS[:pairs], few=True))
    assert "nothing was measured" in result.payload["vector"]["reason"]


@pytest.mark.parametrize(
    ("pairs", "settings", "code", "cure"),
    [
        (PAIRS[:3], {}, "too_few_pairs", "Add more"),
        ((*PAIRS, Pair(" ", "no", "It is")), {}, "empty_side", "pair 7"),
        (tuple(Pair("same", "same", p.prompt) for p in PAIRS), {}, "identical_sides", "Edit one side"),
        (
            tuple(Pair(f"{p.positive} (A)", f"{p.positive} (A) ") for p in PAIRS),
            {"method": "caa"},
            "zero_vector",
            "span",
        ),
        (PAIRS, {"layers": (1, 4)}, "layer_out_of_range", "0 to 3"),
        (PAIRS, {"layers": (-1,)}, "layer_out_of_range", "0 to 3"),
        ((*PAIRS, Pair("calm " * 200, "no")), {}, "text_too_long", "Pair 7"),
        ((*PAIRS, Pair("<eos>", "no")), {}, "nothing_to_read", "Pair 7"),
    ],
)
def test_what_gives_no_vector_is_refused_with_a_cure(tiny_model, pairs, settings, code, cure):
    error = refused(tiny_model("llama"), pairs, **settings)
    assert error.code == code
    assert cure in error.message


def test_overflowing_activations_are_refused_and_located(tiny_model):
    model = tiny_model("llama")
    with torch.no_grad():
        model.layers[2].mlp.down_proj.weight.fill_(float("inf"))
    error = refused(model)
    assert error.code == "non_finite_activations"
    assert "layer 2" in error.message


def test_what_follows_the_token_that_is_read_is_not_run(tiny_model):
    longer = tuple(Pair(p.positive, p.negative, p.prompt) for p in LETTERS)
    vector = build(tiny_model("llama"), longer, method="caa")
    shorter = tuple(Pair(" (A", " (B", p.prompt) for p in LETTERS)
    assert vector.provenance["tokens"] == build(tiny_model("llama"), shorter, method="caa").provenance["tokens"]


@pytest.mark.parametrize(
    ("dtype", "tokens", "expected"),
    [
        (torch.float32, 96, []),
        (torch.float32, 97, [15]),
        (torch.float32, 512, [5, 10, 15, 20, 25]),
        (torch.float32, 9999, list(range(1, 30))),
        (torch.bfloat16, 512, [10, 20]),
    ],
)
def test_a_large_slice_lets_others_go_on_between_its_layers(dtype, tokens, expected):
    model = SimpleNamespace(dtype=dtype, device=torch.device("cpu"))
    assert list(stops(model, 30, tokens)) == expected
    assert list(stops(SimpleNamespace(dtype=dtype, device=torch.device("cuda")), 30, tokens)) == []
