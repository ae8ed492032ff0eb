"""The jobs of programs that read: tokens, activations of several texts, vectors of a feature, nearest features.

Held to sae-lens and transformers themselves.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sae_lens import SAE
from transformers import AutoModelForCausalLM

from inference.errors import InvalidRequest
from inference.saes.places import place_of
from inference.saes.rows import nearest_features, read_vector
from inference.saes.sources import Sources
from inference.saes.tracing import gather
from inference.saes.tracing.job import read_activations
from inference.tokens import tokenize
from inference.types import (
    CreateVector,
    NearestFeatures,
    Pair,
    Progress,
    ReadActivations,
    ReadVector,
    Result,
    Site,
    Tokenize,
)
from tests.inference import saes
from tests.inference.driver import Listener
from tests.inference.saes import D_IN, WIDTH

TEXTS = (
    "The quick brown fox jumps over the lazy dog near the river bank.",
    "Tabby cats purr",
    "A calm reply turns an angry letter into a short conversation. " * 3,
)
BOS = 0


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model("llama")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    here = tmp_path_factory.mktemp("saes")
    saes.save("standard", here / "1-a")
    saes.save("jumprelu", here / "2-a", hook="blocks.2.hook_resid_pre", seed=1)
    saes.save("topk", here / "3-a", hook="blocks.3.hook_resid_post", seed=2)
    saes.save("gated", here / "1-att", hook="blocks.1.attn.hook_z", seed=3)
    saes.save("temporal", here / "1-time", seed=4)
    saes.save("transcoder", here / "1-code", hook="blocks.1.mlp.hook_in", seed=5)
    saes.save("matching_pursuit", here / "1-pursuit", seed=6)
    return here


@pytest.fixture(scope="module")
def sources(folder):
    return Sources([folder])


@pytest.fixture(scope="module")
def plain(tiny_folder):
    """transformers' own model."""
    return AutoModelForCausalLM.from_pretrained(tiny_folder("llama"), dtype=torch.float64)


def done(steps) -> dict:
    *progress, result = steps
    assert all(isinstance(event, Progress) for event in progress)
    assert isinstance(result, Result)
    assert [event.seq for event in (*progress, result)] == list(range(len(progress) + 1))
    return json.loads(json.dumps(result.payload, allow_nan=False))


def read(model, at, texts=TEXTS, /, **settings) -> list[dict]:
    return done(read_activations(model, ReadActivations("job", tuple(texts), **settings), at))["texts"]


def refused(steps, code: str) -> str:
    with pytest.raises(InvalidRequest) as caught:
        list(steps)
    assert caught.value.code == code
    return caught.value.message


def ids_of(model, text: str) -> list[int]:
    return [BOS, *model.tokenizer(text, add_special_tokens=False)["input_ids"]]


def residual(plain, model, text: str, place: int) -> torch.Tensor:
    """`hidden_states[place]`, so that 2 is what the second block gives."""
    with torch.no_grad():
        return plain.model(torch.tensor([ids_of(model, text)]), output_hidden_states=True).hidden_states[place][0]


def latents(folder, source: str, h: torch.Tensor) -> torch.Tensor:
    """sae-lens's own, its decoder norms folded where it allows that."""
    try:
        sae = SAE.load_from_disk(folder / source, fold_W_dec_norm=True)
    except NotImplementedError:
        sae = SAE.load_from_disk(folder / source)
    return sae.encode(h[None])[0]


PLACES = {"1-a": 2, "2-a": 2, "3-a": 4, "1-time": 2}  # of hidden_states; the last has no final norm in it
CLOSE = {"rtol": 1e-5, "atol": 1e-4}  # transformers rounds norms and angles to float32


def latents_of(plain, model, folder, source: str, text: str) -> torch.Tensor:
    if source == "3-a":  # transformers puts the final norm on its last hidden state
        return latents(folder, source, model.residuals(torch.tensor([ids_of(model, text)]))[3, 0])
    return latents(folder, source, residual(plain, model, text, PLACES[source]))


# ---- one feature ----


@pytest.mark.parametrize("source", PLACES)
def test_a_features_values_are_sae_lenss_on_transformers_own_activations(source, model, plain, sources, folder):
    feature = 7
    found = read(model, sources, sources=(source,), features=(feature,))
    assert len(found) == len(TEXTS)
    for text, each in zip(TEXTS, found, strict=True):
        expected = latents_of(plain, model, folder, source, text)[:, feature]
        torch.testing.assert_close(torch.tensor(each["values"], dtype=torch.float64), expected, **CLOSE)
        assert [id for id, _ in each["tokens"]] == ids_of(model, text)
        assert each["special"] == [id in model.tokenizer.all_special_ids for id in ids_of(model, text)]
        assert each["bos"] == [0]


def test_the_texts_of_tokens_keep_their_spaces(model, sources):
    (found,) = read(model, sources, ["Tabby cats"], sources=("1-a",), features=(0,))
    pieces = [piece for _, piece in found["tokens"]]
    assert pieces[0] == "<bos>" and "".join(pieces[1:]) == "Tabby cats" and any(p.startswith(" ") for p in pieces)


@pytest.mark.parametrize("source", PLACES)
def test_a_text_is_read_as_when_it_is_alone(source, model, sources):
    together = read(model, sources, sources=(source,), features=(3,))
    alone = [read(model, sources, [text], sources=(source,), features=(3,))[0] for text in TEXTS]
    for one, other in zip(together, alone, strict=True):
        assert one["tokens"] == other["tokens"]
        np.testing.assert_allclose(one["values"], other["values"], **CLOSE)


def test_short_texts_share_a_forward_pass(model, sources):
    passes = []
    handle = model.layers[0].register_forward_hook(lambda *a: passes.append(a[2]))
    try:
        read(model, sources, TEXTS[:2], sources=("2-a", "1-a", "3-a"), want="strongest")
        assert len(passes) == 1
    finally:
        handle.remove()


def test_bos_is_never_doubled_and_stays_within_a_text(model, sources):
    plain, given, inside = read(
        model, sources, ["cats", "<bos>cats", "cats<bos>cats"], sources=("1-a",), features=(1,), ignore_bos=True
    )
    assert plain["tokens"] == given["tokens"]
    assert inside["bos"][0] == 0 and len(inside["bos"]) == 2
    assert [inside["values"][place] for place in inside["bos"]] == [0.0, 0.0]


def test_a_model_without_bos_is_read_without_one(tiny_model, sources):
    other = tiny_model("llama")
    other.tokenizer.bos_token = None
    (found,) = read(other, sources, ["Tabby cats"], sources=("1-a",), features=(1,), ignore_bos=True)
    assert found["bos"] == [] and "".join(piece for _, piece in found["tokens"]) == "Tabby cats"


# ---- a vector at a hook ----


def test_a_vector_is_multiplied_with_the_activation(model, plain, sources):
    vector = np.random.default_rng(0).normal(size=D_IN).astype(np.float32)
    for hook, place in {
        "blocks.1.hook_resid_post": 2,
        "blocks.1.hook_resid_pre": 1,
        "blocks.0.hook_resid_pre": 0,
    }.items():
        (found,) = read(model, sources, TEXTS[:1], vector=vector, hook=hook)
        h = residual(plain, model, TEXTS[0], place)[1:]  # this tokenizer puts no BOS there itself
        with torch.no_grad():
            ids = torch.tensor([ids_of(model, TEXTS[0])[1:]])
            h = plain.model(ids, output_hidden_states=True).hidden_states[place][0]
        np.testing.assert_allclose(found["values"], (h @ torch.from_numpy(vector).double()).tolist(), **CLOSE)
        assert found["bos"] == [] and found["dfa"] is None


def test_a_vector_that_is_an_encoders_column_reads_the_feature_before_its_bias(model, sources):
    feature = 5
    column = done(read_vector(model, ReadVector("job", "1-a", feature), sources))["encoder"]
    sae = sources.get("1-a", model)
    text = "<bos>" + TEXTS[0]  # so that both read the same tokens
    (by_vector,) = read(model, sources, [text], vector=np.array(column, np.float32), hook="blocks.1.hook_resid_post")
    (by_feature,) = read(model, sources, [text], sources=("1-a",), features=(feature,))
    bias = float(sae.b_enc[feature] - sae.b_dec @ sae.W_enc[:, feature])
    expected = [max(value + bias, 0.0) for value in by_vector["values"]]
    np.testing.assert_allclose(by_feature["values"], expected, rtol=1e-5, atol=1e-5)


# ---- all features ----


def test_the_strongest_features_are_those_of_a_full_encode_of_every_source(model, plain, sources, folder):
    names = ("1-a", "2-a", "3-a")
    found = read(model, sources, want="strongest", sources=names, limit=30)
    for text, each in zip(TEXTS, found, strict=True):
        all_latents = {name: latents_of(plain, model, folder, name, text) for name in names}
        ranked = sorted(
            ((-float(a[:, i].max()), order, i) for order, a in enumerate(all_latents.values()) for i in range(WIDTH))
        )[:30]
        assert [(f["source"], f["index"]) for f in each["found"]] == [(names[order], i) for _, order, i in ranked]
        for f in each["found"]:
            np.testing.assert_allclose(f["values"], all_latents[f["source"]][:, f["index"]].tolist(), **CLOSE)
            assert f["sum"] == 0.0
        for name in names:
            assert each["counts"][name] == (all_latents[name] > 0).sum(dim=1).tolist()


def test_sorting_by_tokens_ranks_by_the_sum_over_them(model, plain, sources, folder):
    (found,) = read(model, sources, TEXTS[:1], want="strongest", sources=("1-a",), sort_by=(2, 4), limit=10)
    sums = latents_of(plain, model, folder, "1-a", TEXTS[0])[[2, 4]].sum(dim=0)
    best = sums.topk(10)
    assert [f["index"] for f in found["found"]] == best.indices.tolist()
    np.testing.assert_allclose([f["sum"] for f in found["found"]], best.values.tolist(), **CLOSE)


def test_results_are_filled_up_with_features_that_are_0_in_order_of_index(model, sources):
    (found,) = read(model, sources, ["cats"], want="strongest", sources=("3-a",), limit=WIDTH)
    silent = [f["index"] for f in found["found"] if not any(f["values"])]
    assert len(found["found"]) == WIDTH and len(silent) > 10 and silent == sorted(silent)


def test_a_filter_lets_only_those_features_in(model, sources):
    (found,) = read(model, sources, TEXTS[:1], want="strongest", sources=("1-a", "2-a"), features=(9, 4), limit=25)
    assert sorted((f["source"], f["index"]) for f in found["found"]) == [("1-a", 4), ("1-a", 9), ("2-a", 4), ("2-a", 9)]


def test_without_bos_its_activations_count_as_0(model, sources):
    (with_bos,) = read(model, sources, TEXTS[:1], want="strongest", sources=("1-a",), limit=5)
    (without,) = read(model, sources, TEXTS[:1], want="strongest", sources=("1-a",), limit=5, ignore_bos=True)
    assert with_bos["counts"]["1-a"][0] > 0 and without["counts"]["1-a"][0] == 0
    assert all(f["values"][0] == 0 for f in without["found"]) and any(f["values"][0] for f in with_bos["found"])


def test_the_largest_features_of_each_token(model, plain, sources, folder):
    (found,) = read(model, sources, TEXTS[:1], want="top", sources=("1-a",), limit=4)
    values, indices = latents_of(plain, model, folder, "1-a", TEXTS[0]).topk(4, dim=1)
    for pairs, v, i in zip(found["top"], values.tolist(), indices.tolist(), strict=True):
        assert [index for index, _ in pairs] == i
        np.testing.assert_allclose([value for _, value in pairs], v, **CLOSE)


def test_the_largest_features_are_filled_up_by_index(model, sources):
    (found,) = read(model, sources, ["cats"], want="top", sources=("3-a",), limit=20)
    for pairs in found["top"]:
        silent = [index for index, value in pairs if value == 0]
        used = {index for index, value in pairs if value}
        assert len(pairs) == 20 and silent == [i for i in range(WIDTH) if i not in used][: len(silent)]


def test_active_features_are_all_that_are_not_0(model, plain, sources, folder):
    (found,) = read(model, sources, TEXTS[:1], want="active", sources=("3-a",), ignore_bos=True)
    expected = latents_of(plain, model, folder, "3-a", TEXTS[0])
    expected[0] = 0
    rebuilt = torch.zeros_like(expected)
    for index, pairs in found["active"].items():
        for token, value in pairs:
            rebuilt[token, int(index)] = value
    torch.testing.assert_close(rebuilt, expected, **CLOSE)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_equal_features_are_named_by_index_whichever_topk_takes(limit):
    row = torch.tensor([1.0, 3.0, 0.0, 3.0, 3.0, 1.0])
    last = [4, 3, 1][:limit]
    assert gather._filled([3.0] * limit, last, row) == [[1, 3.0], [3, 3.0], [4, 3.0]][:limit]


@pytest.mark.parametrize(("want", "limit"), [("top", 1000), ("strongest", 1000)])
def test_an_answer_that_would_be_too_large_is_refused_before_anything_is_read(model, sources, want, limit):
    passes = []
    handle = model.layers[0].register_forward_hook(lambda *a: passes.append(1))
    job = ReadActivations("job", ("cats " * 10,) * 64, sources=("1-a",), want=want, limit=limit)
    try:
        message = refused(read_activations(model, job, sources), "answer_too_large")
    finally:
        handle.remove()
    assert "fewer" in message and not passes
    assert len(read(model, sources, ["cats " * 10] * 2, sources=("1-a",), want=want, limit=limit)) == 2


def test_active_features_are_counted_over_all_texts(model, sources, monkeypatch):
    job = ReadActivations("job", TEXTS[:1] * 3, sources=("1-a",), want="active")
    (one,) = read(model, sources, TEXTS[:1], sources=("1-a",), want="active")
    count = sum(map(len, one["active"].values()))
    monkeypatch.setattr(gather, "MOST_ACTIVE", 2 * count)
    read(model, sources, TEXTS[:1] * 2, sources=("1-a",), want="active")
    refused(read_activations(model, job, sources), "too_many_active")


@pytest.mark.parametrize("hook", ["blocks.{}.hook_resid_post", "blocks.{}.hook_resid_pre"])
def test_a_layer_of_thousands_of_digits_is_no_hook(hook):
    name = hook.format("9" * 5000)
    for parse in (place_of, Site.parse):
        with pytest.raises(InvalidRequest):
            parse(name)
    with pytest.raises(InvalidRequest):
        place_of("", f"model.layers.{'9' * 5000}.output")


# ---- attention ----


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_oss"])
def test_what_each_token_gave_sums_to_the_features_product_with_z(family, tiny_model, folder):
    model, sources = tiny_model(family), Sources([folder], include=["1-att"])
    taken: list[torch.Tensor] = []
    projection = model.layers[1].attn.c_proj if family == "gpt2" else model.layers[1].self_attn.o_proj
    handle = projection.register_forward_pre_hook(lambda _, args: taken.append(args[0][0].clone()))
    (found,) = read(model, sources, TEXTS[:1], want="strongest", sources=("1-att",), attention=True, limit=3)
    handle.remove()
    sae = sources.get("1-att", model)
    for f in found["found"]:
        target = int(np.argmax(f["values"]))
        z = max(taken, key=len)[target].double()
        product = float(z @ sae.W_enc[:, f["index"]])
        assert len(f["dfa"]) == len(found["tokens"])
        np.testing.assert_allclose(sum(f["dfa"]), product, rtol=1e-6, atol=1e-6)
        assert not any(f["dfa"][target + 1 :])
    (one,) = read(model, sources, TEXTS[:1], sources=("1-att",), features=(found["found"][0]["index"],), attention=True)
    np.testing.assert_allclose(one["dfa"], found["found"][0]["dfa"], **CLOSE)


def test_other_sites_have_no_attribution(model, sources):
    (found,) = read(model, sources, TEXTS[:1], sources=("1-a",), features=(3,), attention=True)
    assert found["dfa"] is None


# ---- vectors and neighbours ----


def test_a_features_vectors_are_sae_lenss_folded_ones(model, sources, folder):
    other = SAE.load_from_disk(folder / "1-a", fold_W_dec_norm=True)
    found = done(read_vector(model, ReadVector("job", "1-a", 5), sources))
    np.testing.assert_allclose(found["encoder"], other.W_enc[:, 5].tolist(), rtol=1e-6)
    np.testing.assert_allclose(found["decoder"], other.W_dec[5].tolist(), rtol=1e-6)
    assert found["hook"] == found["hook_out"] == "blocks.1.hook_resid_post"
    plain = SAE.load_from_disk(folder / "1-a")
    assert found["decoder_norm"] == pytest.approx(float(plain.W_dec[5].norm()), rel=1e-6)


def test_a_transcoder_writes_elsewhere_and_some_have_no_columns(model, sources):
    found = done(read_vector(model, ReadVector("job", "1-code", 5), sources))
    assert (found["hook"], found["hook_out"]) == ("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out")
    assert done(read_vector(model, ReadVector("job", "1-pursuit", 5), sources))["encoder"] is None


def test_neighbours_are_those_of_a_cosine_in_numpy(model, sources, folder):
    rows = SAE.load_from_disk(folder / "1-a").W_dec.detach().numpy()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = done(nearest_features(model, NearestFeatures("job", "1-a", 7, limit=12), sources))["found"]
    cosines = unit @ unit[7]
    assert [index for index, _ in found] == np.argsort(-cosines, kind="stable")[:12].tolist()
    np.testing.assert_allclose([cosine for _, cosine in found], np.sort(cosines)[::-1][:12], rtol=1e-6)
    assert found[0][0] == 7 and found[0][1] == pytest.approx(1)
    vector = np.random.default_rng(1).normal(size=D_IN).astype(np.float32)
    found = done(nearest_features(model, NearestFeatures("job", "1-a", vector=vector, limit=WIDTH), sources))["found"]
    expected = unit @ (vector / np.linalg.norm(vector))
    np.testing.assert_allclose([expected[index] for index, _ in found], np.sort(expected)[::-1], rtol=1e-5, atol=1e-6)


def test_a_row_that_is_zero_is_nobodys_neighbour(model, tmp_path):
    from safetensors.torch import load_file, save_file

    saes.save("topk", tmp_path / "1-zero")  # not folded, so a zero row stays one
    weights = load_file(tmp_path / "1-zero" / "sae_weights.safetensors")
    weights["W_dec"][3] = 0
    save_file(weights, tmp_path / "1-zero" / "sae_weights.safetensors")
    vector = -np.ones(D_IN, np.float32)
    request = NearestFeatures("job", "1-zero", vector=vector, limit=WIDTH)
    found = done(nearest_features(model, request, Sources([tmp_path])))["found"]
    assert found[-1] == [3, 0.0]


# ---- tokens ----


def test_tokens_with_and_without_bos(model):
    with_bos = done(tokenize(model, Tokenize("job", "Tabby cats")))
    without = done(tokenize(model, Tokenize("job", "Tabby cats", bos=False)))
    assert with_bos["tokens"] == [[BOS, "<bos>"], *without["tokens"]] and with_bos["bos"] and not without["bos"]
    assert with_bos["special"] == [True] + [False] * len(without["tokens"])
    assert done(tokenize(model, Tokenize("job", "")))["tokens"] == [[BOS, "<bos>"]]
    assert done(tokenize(model, Tokenize("job", "", bos=False)))["tokens"] == []


# ---- refusals ----


@pytest.mark.parametrize(
    ("code", "settings"),
    [
        ("feature_out_of_range", {"sources": ("1-a",), "features": (WIDTH,)}),
        ("feature_out_of_range", {"sources": ("1-a",), "features": (-1,)}),
        ("bad_count", {"sources": ("1-a",), "features": ()}),
        ("bad_count", {"sources": ("1-a", "2-a"), "want": "top"}),
        ("bad_count", {"sources": ("1-a",), "want": "top", "limit": 0}),
        ("bad_count", {"texts": (), "sources": ("1-a",), "want": "top"}),
        ("token_out_of_range", {"sources": ("1-a",), "want": "strongest", "sort_by": (999,)}),
        ("token_out_of_range", {"sources": ("1-a",), "want": "strongest", "sort_by": (-1,)}),
        ("empty_text", {"texts": ("",), "sources": ("1-a",), "want": "top"}),
        ("text_too_long", {"texts": ("cats " * 40,), "sources": ("1-a",), "want": "top", "most_tokens": 20}),
        ("text_too_long", {"texts": ("c" * 5000,), "sources": ("1-a",), "want": "top"}),
        ("one_input", {}),
        ("one_input", {"sources": ("1-a",), "vector": np.ones(D_IN, np.float32), "hook": "blocks.1.hook_resid_post"}),
        ("wrong_size", {"vector": np.ones(3, np.float32), "hook": "blocks.1.hook_resid_post"}),
        ("unknown_hook", {"vector": np.ones(D_IN, np.float32), "hook": "blocks.1.mlp.hook_post"}),
        ("layer_out_of_range", {"vector": np.ones(D_IN, np.float32), "hook": "blocks.9.hook_resid_post"}),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_cure(code, settings, model, sources):
    job = ReadActivations("job", **{"texts": ("Tabby cats",), **settings})
    assert refused(read_activations(model, job, sources), code).endswith(".")


def test_a_refusal_says_which_of_several_texts(model, sources):
    job = ReadActivations("job", ("cats", "cats " * 40), "top", ("1-a",), most_tokens=20)
    assert "In prompt 1 (of 2" in refused(read_activations(model, job, sources), "text_too_long")


@pytest.mark.parametrize(
    ("code", "settings"),
    [
        ("one_input", {}),
        ("one_input", {"index": 1, "vector": np.ones(D_IN, np.float32)}),
        ("feature_out_of_range", {"index": WIDTH}),
        ("wrong_size", {"vector": np.ones(D_IN + 1, np.float32)}),
        ("bad_direction", {"vector": np.zeros(D_IN, np.float32)}),
        ("bad_count", {"index": 1, "limit": 0}),
    ],
)
def test_what_has_no_neighbours_is_refused_with_a_cure(code, settings, model, sources):
    assert refused(nearest_features(model, NearestFeatures("job", "1-a", **settings), sources), code).endswith(".")


def test_only_so_many_saes_stay_loaded(model, folder):
    few = Sources([folder], most=2)
    for name in ("1-a", "2-a", "3-a", "2-a"):
        few.get(name, model)
    assert [info.id for info in few.infos(model) if info.loaded] == ["2-a", "3-a"]


def test_saes_of_another_model_fit_where_that_is_said(model, tmp_path):
    saes.save("standard", tmp_path / "1-other", metadata={"model_name": "somebody/else-7b"})
    assert "was trained on" in Sources([tmp_path]).infos(model)[0].problem
    assert Sources([tmp_path], fitting=["somebody/else-7b"]).infos(model)[0].problem == ""


# ---- in the engine ----


def test_a_short_question_does_not_wait_for_a_long_job(make_engine):
    engine = make_engine("llama")
    slow, quick = Listener(), Listener()
    order: list[str] = []

    def take_slow(event):
        if not order:
            order.append("begun")
            engine.start_job(Tokenize("quick", "Tabby cats"), take_quick)
        order.append(f"slow {event.type}")
        slow.inbox.put(event)

    def take_quick(event):
        order.append(f"quick {event.type}")
        quick.inbox.put(event)

    pairs = tuple(Pair(f"{i} cats purr", f"{i} foxes jump") for i in range(100))
    engine.start_job(CreateVector("slow", pairs=pairs), take_slow)
    assert slow.wait().result and quick.wait().result.payload["bos"]
    assert order.index("quick result") < order.index("slow result") and order.count("slow progress") > 2
