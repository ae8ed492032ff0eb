"""Neuronpedia's unmodified client reads activations, tokens and vectors; held to sae-lens, transformers and numpy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
from neuronpedia_inference_client import (
    ActivationAllBatchPostRequest,
    ActivationAllPostRequest,
    ActivationSingleBatchPostRequest,
    ActivationSinglePostRequest,
    ActivationSourcePostRequest,
    ActivationTopkByTokenBatchPostRequest,
    ActivationTopkByTokenPostRequest,
    DefaultApi,
    NPFeature,
    TokenizePostRequest,
    UtilSaeTopkByDecoderCossimPostRequest,
    UtilSaeVectorPostRequest,
)
from sae_lens import SAE
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.compat.neuronpedia import add_sources, capabilities, client
from tests.inference.saes import D_IN, WIDTH
from tests.openai.server import Server

PROMPTS = ["The quick brown fox jumps over the lazy dog.", "Tabby cats purr", "A calm reply turns an angry letter."]
TINY = {"1-tiny": 2, "2-tiny": 2, "3-tiny": 4}  # places among hidden_states
CLOSE = {"rtol": 1e-5, "atol": 1e-4}  # transformers rounds norms and angles to float32


class Reference:
    """sae-lens on transformers' own activations, BOS at the front."""

    def __init__(self, server: Server):
        self.folder = server.model.parent / "data" / "saes"
        self.tokenizer = AutoTokenizer.from_pretrained(server.model)
        self.hf = AutoModelForCausalLM.from_pretrained(server.model, dtype=torch.float64)

    def ids(self, prompt: str) -> list[int]:
        return [0, *self.tokenizer(prompt, add_special_tokens=False)["input_ids"]]

    def pieces(self, prompt: str) -> list[str]:
        return [self.tokenizer.decode([id], clean_up_tokenization_spaces=False) for id in self.ids(prompt)]

    @torch.no_grad()
    def hidden(self, prompt: str, place: int, ids: list[int] | None = None) -> torch.Tensor:
        norm, self.hf.model.norm = self.hf.model.norm, torch.nn.Identity()  # the last one without the final norm
        try:
            given = torch.tensor([self.ids(prompt) if ids is None else ids])
            return self.hf.model(given, output_hidden_states=True).hidden_states[place][0]
        finally:
            self.hf.model.norm = norm

    def sae(self, source: str) -> Any:
        try:
            return SAE.load_from_disk(self.folder / source, fold_W_dec_norm=True)
        except NotImplementedError:
            return SAE.load_from_disk(self.folder / source)

    def latents(self, source: str, prompt: str) -> np.ndarray:
        return self.sae(source).encode(self.hidden(prompt, {**TINY, "2-top": 3}[source])).detach().numpy()


@pytest.fixture(scope="module")
def reference(server: Server) -> Reference:
    add_sources(server)
    return Reference(server)


@pytest.fixture
def api(server: Server, reference: Reference) -> Iterator[DefaultApi]:
    with client(server) as found:
        yield found


@pytest.fixture
def model(server: Server) -> str:
    return str(server.about["model"])


# ---- activation/single ----


@pytest.mark.parametrize("source", [*TINY, "2-top"])
def test_single_gives_a_features_activations_without_bos(
    source: str, api: DefaultApi, model: str, reference: Reference
) -> None:
    request = ActivationSinglePostRequest(prompt=PROMPTS[0], model=model, source=source, index="7")
    found = api.activation_single_post(request)
    expected = reference.latents(source, PROMPTS[0])[1:, 7]
    np.testing.assert_allclose(found.activation.values, expected, **CLOSE)
    assert found.activation.max_value_index == int(expected.argmax())
    assert found.activation.max_value == pytest.approx(expected.max(), rel=1e-5)
    assert found.tokens == reference.pieces(PROMPTS[0])[1:]
    assert found.tokens_is_special == [False] * len(found.tokens)
    assert found.activation.dfa_values is None


def test_single_reads_bos_inside_a_text_as_0(api: DefaultApi, model: str) -> None:
    request = ActivationSinglePostRequest(prompt="<bos>cats<bos>cats", model=model, source="1-tiny", index="1")
    found = api.activation_single_post(request)
    inside = found.tokens.index("<bos>")
    assert inside > 0 and found.activation.values[inside] == 0 and found.tokens_is_special[inside]
    assert sum(found.tokens_is_special) == 1


def test_single_multiplies_a_vector_and_drops_nothing(api: DefaultApi, model: str, reference: Reference) -> None:
    vector = np.random.default_rng(3).normal(size=D_IN).astype(np.float32)
    request = ActivationSinglePostRequest(
        prompt=PROMPTS[1], model=model, vector=vector.tolist(), hook="blocks.1.hook_resid_post"
    )
    found = api.activation_single_post(request)
    ids = reference.tokenizer(PROMPTS[1])["input_ids"]
    expected = reference.hidden(PROMPTS[1], 2, ids).numpy() @ vector.astype(float)
    np.testing.assert_allclose(found.activation.values, expected, **CLOSE)
    assert len(found.tokens) == len(ids)


def test_a_vector_at_its_hook_reads_what_the_encoders_column_reads(
    api: DefaultApi, model: str, reference: Reference
) -> None:
    found = api.util_sae_vector_post(UtilSaeVectorPostRequest(model=model, source="2-tiny", index=5))
    prompt = "<bos>" + PROMPTS[0]
    by_vector = api.activation_single_post(
        ActivationSinglePostRequest(prompt=prompt, model=model, vector=found.vector, hook=found.hook_name)
    )
    by_feature = api.activation_single_post(
        ActivationSinglePostRequest(prompt=prompt, model=model, source="2-tiny", index="5")
    )
    sae = reference.sae("2-tiny")
    bias = float(sae.b_enc[5] - (sae.b_dec @ sae.W_enc[:, 5] if sae.cfg.apply_b_dec_to_input else 0))
    expected = [max(value + bias, 0) for value in by_vector.activation.values[1:]]
    np.testing.assert_allclose(by_feature.activation.values, expected, rtol=1e-4, atol=1e-4)


def test_single_tells_what_attention_gave_each_token(api: DefaultApi, model: str, reference: Reference) -> None:
    request = ActivationSinglePostRequest(prompt=PROMPTS[0], model=model, source="1-att", index="4")
    found = api.activation_single_post(request).activation
    assert found.dfa_values is not None and len(found.dfa_values) == len(found.values)
    assert found.dfa_target_index == found.max_value_index
    assert found.dfa_max_value == max(found.dfa_values)
    assert not any(found.dfa_values[found.max_value_index + 1 :]) and any(found.dfa_values)


def test_single_batch_equals_single(api: DefaultApi, model: str) -> None:
    for settings in ({"source": "3-tiny", "index": "9"}, {"vector": [0.5] * D_IN, "hook": "blocks.2.hook_resid_pre"}):
        together = api.activation_single_batch_post(
            ActivationSingleBatchPostRequest(prompts=PROMPTS, model=model, **settings)
        )
        assert len(together.results) == len(PROMPTS)
        for prompt, one in zip(PROMPTS, together.results, strict=True):
            alone = api.activation_single_post(ActivationSinglePostRequest(prompt=prompt, model=model, **settings))
            assert (one.tokens, one.tokens_is_special) == (alone.tokens, alone.tokens_is_special)
            np.testing.assert_allclose(one.activation.values, alone.activation.values, **CLOSE)
            assert one.activation.max_value_index == alone.activation.max_value_index


# ---- activation/all ----


def everything(model: str, **settings: Any) -> ActivationAllPostRequest:
    defaults = {"source_set": "tiny", "selected_sources": [], "sort_by_token_indexes": [], "ignore_bos": True}
    return ActivationAllPostRequest(prompt=PROMPTS[0], model=model, **{**defaults, **settings})


def test_all_ranks_the_features_of_all_sources_together(api: DefaultApi, model: str, reference: Reference) -> None:
    found = api.activation_all_post(everything(model, num_results=30))
    latents = {source: reference.latents(source, PROMPTS[0]) for source in TINY}
    for each in latents.values():
        each[0] = 0  # ignore_bos
    ranked = sorted((-a[:, i].max(), order, i) for order, a in enumerate(latents.values()) for i in range(WIDTH))[:30]
    assert [(a.source, a.index) for a in found.activations] == [([*TINY][order], i) for _, order, i in ranked]
    assert found.tokens == reference.pieces(PROMPTS[0])
    for each in found.activations:
        expected = latents[each.source][:, each.index]
        np.testing.assert_allclose(each.values, expected, **CLOSE)
        assert each.max_value == pytest.approx(expected.max(), rel=1e-5) and each.max_value_index == expected.argmax()
        assert each.sum_values == 0
    counts = np.array(found.counts)
    assert counts.shape == (4, len(found.tokens)) and not counts[0].any()
    for row, each in zip(counts[1:], latents.values(), strict=True):
        assert row.tolist() == (each > 0).sum(axis=1).tolist()


def test_all_sorts_by_the_sum_over_tokens(api: DefaultApi, model: str, reference: Reference) -> None:
    found = api.activation_all_post(everything(model, selected_sources=["2-tiny"], sort_by_token_indexes=[2, 3]))
    sums = reference.latents("2-tiny", PROMPTS[0])[[2, 3]].sum(axis=0)
    assert [a.index for a in found.activations] == np.argsort(-sums, kind="stable")[:25].tolist()
    np.testing.assert_allclose([a.sum_values for a in found.activations], np.sort(sums)[::-1][:25], **CLOSE)
    counts = np.array(found.counts)
    assert len(counts) == 4 and not counts[[0, 1, 3]].any() and counts[2].any()


def test_all_keeps_bos_where_it_is_not_ignored(api: DefaultApi, model: str, reference: Reference) -> None:
    found = api.activation_all_post(everything(model, selected_sources=["1-tiny"], ignore_bos=False, num_results=WIDTH))
    latents = reference.latents("1-tiny", PROMPTS[0])
    first = {a.index: a.values[0] for a in found.activations}
    np.testing.assert_allclose([first[i] for i in range(WIDTH)], latents[0], **CLOSE)


def test_all_lets_a_filter_of_older_clients_through(server: Server, api: DefaultApi, model: str) -> None:
    body = everything(model).to_dict() | {"feature_filter": [8, 3], "selected_sources": ["1-tiny"]}
    answer = httpx2.post(f"{server.url}/v1/activation/all", json=body, headers={"X-SECRET-KEY": server.key("all")})
    assert sorted(a["index"] for a in answer.json()["activations"]) == [3, 8]


def test_all_batch_equals_all(api: DefaultApi, model: str) -> None:
    fields = everything(model).to_dict()
    del fields["prompt"]
    together = api.activation_all_batch_post(ActivationAllBatchPostRequest(prompts=PROMPTS, **fields))
    for prompt, one in zip(PROMPTS, together.results, strict=True):
        alone = api.activation_all_post(ActivationAllPostRequest(prompt=prompt, **fields))
        assert one.tokens == alone.tokens and one.counts == alone.counts
        assert [(a.source, a.index) for a in one.activations] == [(a.source, a.index) for a in alone.activations]
        for a, b in zip(one.activations, alone.activations, strict=True):
            np.testing.assert_allclose(a.values, b.values, **CLOSE)


# ---- activation/topk-by-token, activation/source ----


@pytest.mark.parametrize("ignore_bos", [True, False])
def test_top_features_of_each_token(ignore_bos: bool, api: DefaultApi, model: str, reference: Reference) -> None:
    found = api.activation_topk_by_token_post(
        ActivationTopkByTokenPostRequest(prompt=PROMPTS[0], model=model, source="2-tiny", ignore_bos=ignore_bos)
    )
    latents, first = reference.latents("2-tiny", PROMPTS[0]), int(ignore_bos)
    assert found.tokens == reference.pieces(PROMPTS[0])[first:]
    assert [r.token_position for r in found.results] == list(range(first, len(latents)))
    for each in found.results:
        best = np.argsort(-latents[each.token_position], kind="stable")[:5]
        assert [f.feature_index for f in each.top_features] == best.tolist()
        values = [f.activation_value for f in each.top_features]
        np.testing.assert_allclose(values, latents[each.token_position][best], **CLOSE)
        assert each.token == reference.pieces(PROMPTS[0])[each.token_position]
        assert each.is_special == (each.token_position == 0)


def test_top_features_of_each_token_in_a_batch(api: DefaultApi, model: str) -> None:
    settings: dict[str, Any] = {"model": model, "source": "2-top", "ignore_bos": True, "top_k": 9}
    together = api.activation_topk_by_token_batch_post(
        ActivationTopkByTokenBatchPostRequest(prompts=PROMPTS, **settings)
    )
    for prompt, one in zip(PROMPTS, together.results, strict=True):
        alone = api.activation_topk_by_token_post(ActivationTopkByTokenPostRequest(prompt=prompt, **settings))
        assert one.tokens == alone.tokens
        for a, b in zip(one.results, alone.results, strict=True):
            assert [f.feature_index for f in a.top_features] == [f.feature_index for f in b.top_features]
            assert len(a.top_features) == 9 and a.token_position == b.token_position


def test_source_gives_all_active_features(api: DefaultApi, model: str, reference: Reference) -> None:
    found = api.activation_source_post(ActivationSourcePostRequest(prompts=PROMPTS, model=model, source="2-top"))
    for prompt, one in zip(PROMPTS, found.results, strict=True):
        latents = reference.latents("2-top", prompt)
        latents[0] = 0
        assert one.tokens == reference.pieces(prompt) and one.active_features is not None
        pairs = {(int(f), int(t)): v for f, some in one.active_features.items() for t, v in some}
        assert pairs.keys() == {(int(f), int(t)) for t, f in zip(*latents.nonzero(), strict=True)}
        for (feature, token), value in pairs.items():
            assert value == pytest.approx(latents[token, feature], abs=6e-4)


# ---- tokenize, util ----


@pytest.mark.parametrize("prepend_bos", [True, False, None])
def test_tokenize(prepend_bos: bool | None, api: DefaultApi, model: str, reference: Reference) -> None:
    found = api.tokenize_post(TokenizePostRequest(model=model, text=PROMPTS[0], prepend_bos=prepend_bos))
    skip = prepend_bos is False
    assert found.tokens == reference.ids(PROMPTS[0])[skip:]
    assert found.token_strings == reference.pieces(PROMPTS[0])[skip:]
    assert found.prepend_bos is not skip


def test_neighbours_are_those_of_a_cosine_in_numpy(api: DefaultApi, model: str, reference: Reference) -> None:
    rows = reference.sae("1-tiny").W_dec.detach().numpy()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    feature = NPFeature(model=model, source="1-tiny", index=7)
    found = api.util_sae_topk_by_decoder_cossim_post(
        UtilSaeTopkByDecoderCossimPostRequest(feature=feature, model=model, source="1-tiny", num_results=6)
    )
    cosines = unit @ unit[7]
    near = found.topk_decoder_cossim_features or []
    assert [n.feature.index for n in near] == np.argsort(-cosines, kind="stable")[:6].tolist()
    np.testing.assert_allclose([n.cosine_similarity for n in near], np.sort(cosines)[::-1][:6], **CLOSE)
    assert near[0].feature == found.feature == feature


def test_neighbours_of_a_vector_and_in_another_source(api: DefaultApi, model: str, reference: Reference) -> None:
    rows = {source: reference.sae(source).W_dec.detach().numpy() for source in ("1-tiny", "3-tiny")}
    unit = {source: each / np.linalg.norm(each, axis=1, keepdims=True) for source, each in rows.items()}
    expected = unit["3-tiny"] @ unit["1-tiny"][7]
    by_feature = api.util_sae_topk_by_decoder_cossim_post(
        UtilSaeTopkByDecoderCossimPostRequest(
            feature=NPFeature(model=model, source="1-tiny", index=7), model=model, source="3-tiny", num_results=4
        )
    )
    by_vector = api.util_sae_topk_by_decoder_cossim_post(
        UtilSaeTopkByDecoderCossimPostRequest(
            vector=(2 * rows["1-tiny"][7]).tolist(), model=model, source="3-tiny", num_results=4
        )
    )
    for found in (by_feature, by_vector):
        near = found.topk_decoder_cossim_features or []
        assert [n.feature.index for n in near] == np.argsort(-expected)[:4].tolist()
        np.testing.assert_allclose(
            [n.cosine_similarity for n in near], np.sort(expected)[::-1][:4], rtol=1e-5, atol=1e-6
        )
    assert by_vector.feature is None


def test_the_vector_of_a_feature_is_the_encoders_column(api: DefaultApi, model: str, reference: Reference) -> None:
    found = api.util_sae_vector_post(UtilSaeVectorPostRequest(model=model, source="3-tiny", index=11))
    np.testing.assert_allclose(found.vector, reference.sae("3-tiny").W_enc[:, 11].tolist(), **CLOSE)
    assert found.hook_name == "blocks.3.hook_resid_post"


def test_the_decoders_row_on_request(server: Server, model: str, reference: Reference) -> None:
    for source in ("3-tiny", "1-pursuit"):
        body = {"model": model, "source": source, "index": 11, "vector_type": "decoder"}
        answer = httpx2.post(f"{server.url}/v1/util/sae-vector", json=body, headers={"X-SECRET-KEY": server.key("all")})
        np.testing.assert_allclose(answer.json()["vector"], reference.sae(source).W_dec[11].tolist(), **CLOSE)


# ---- around ----


def test_health_needs_no_key(server: Server) -> None:
    assert httpx2.get(f"{server.url}/health").json() == {"status": "healthy"}


def test_capabilities_say_what_is_served(server: Server, reference: Reference, model: str) -> None:
    said = capabilities(server)
    assert said["models"][0]["model"] == model and {"tiny", "top", "att"} <= set(said["models"][0]["sae_sets"])
    assert said["limits"] == {"token_limit": 1000, "batch_size": 32, "num_results": 1000}


def test_camel_case_is_taken_too(server: Server, reference: Reference, model: str) -> None:
    body = {"prompt": "cats", "model": model, "sourceSet": "tiny", "selectedSources": ["1-tiny"],
            "sortByTokenIndexes": [], "ignoreBos": True, "numResults": 3}  # fmt: skip
    answer = httpx2.post(f"{server.url}/v1/activation/all", json=body, headers={"X-SECRET-KEY": server.key("all")})
    assert len(answer.json()["activations"]) == 3


def test_many_at_once_give_what_each_gives_alone(server: Server, model: str, reference: Reference) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def ask(i: int) -> str:
        with client(server) as api:
            if i % 4 == 0:
                return api.tokenize_post(TokenizePostRequest(model=model, text=f"{PROMPTS[0]} {i}")).to_json()
            if i % 4 == 1:
                return api.activation_all_post(everything(model, num_results=2 + i % 3)).to_json()
            request = ActivationSinglePostRequest(prompt=PROMPTS[i % 3], model=model, source="2-top", index=str(i))
            return api.activation_single_post(request).to_json()

    alone = [ask(i) for i in range(16)]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, range(16)))
    for one, other in zip(alone, together, strict=True):
        assert json.loads(one) == json.loads(other)
