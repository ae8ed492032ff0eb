"""The jobs over SAEs: reading a text, describing a feature, searching by example, indexing a corpus."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from inference.client import Inference
from inference.errors import InvalidRequest, NotFound
from inference.saes.corpus import PASSAGE, index_corpus
from inference.saes.describing import describe_feature
from inference.saes.index import BEFORE, INDEX
from inference.saes.reading import read_features
from inference.saes.searching import search_features
from inference.saes.sources import Sources
from inference.types import (
    DescribeFeature,
    Failed,
    IndexCorpus,
    Message,
    Progress,
    ReadFeatures,
    Result,
    SearchFeatures,
)
from tests.inference import saes
from tests.inference.driver import Listener
from tests.inference.saes import ARCHITECTURES, TRANSCODERS, WIDTH

TEXT = "The quick brown fox jumps over the lazy dog near the river bank."
CORPUS = (
    TEXT,
    "Tabby cats purr when the morning light warms the window sill.",
    "A calm reply turns an angry letter. " * 9,
)


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model("llama")


@pytest.fixture
def sources(tmp_path):
    saes.save("jumprelu", tmp_path / "1-test")
    return Sources([tmp_path])


def done(steps) -> dict:
    *progress, result = steps
    assert all(isinstance(event, Progress) for event in progress)
    assert isinstance(result, Result)
    assert [event.seq for event in (*progress, result)] == list(range(len(progress) + 1))
    return json.loads(json.dumps(result.payload, allow_nan=False))


def refused(steps, code: str) -> str:
    with pytest.raises((InvalidRequest, NotFound)) as caught:
        list(steps)
    assert caught.value.code == code
    return caught.value.message


def residuals(model, text: str, layer: int = 1) -> torch.Tensor:
    return model.residuals(torch.tensor([model.encode_prompt(text)]))[layer, 0]


def read(model, sources, text=TEXT, source="1-test", **settings) -> dict:
    return done(read_features(model, ReadFeatures("job", source, text=text, **settings), sources))


# ---- reading ----


def test_a_texts_features_are_those_of_a_full_encode(model, sources):
    payload = read(model, sources, features=(3, 7), top=5, overall=WIDTH)
    sae, h = sources.get("1-test", model), residuals(model, TEXT)
    latents = sae.encode(h)
    assert [id for id, _ in payload["tokens"]] == model.encode_prompt(TEXT)
    assert "".join(text for _, text in payload["tokens"]) == TEXT
    for index in (3, 7):
        np.testing.assert_allclose(payload["values"][str(index)], latents[:, index], rtol=1e-3)
    for row, found in zip(latents, payload["top"], strict=True):
        values, indices = row.topk(5)
        expected = [[i, v] for i, v in zip(indices.tolist(), values.tolist(), strict=True) if v > 0]
        assert [i for i, _ in found] == [i for i, _ in expected]
        np.testing.assert_allclose([v for _, v in found], [v for _, v in expected], rtol=1e-3)
    kept = [p for p in range(len(h)) if p not in payload["left_out"]]
    overall = {i: (v, at) for i, v, at in payload["overall"]}
    for index in range(WIDTH):
        largest, at = latents[kept, index].max(0)
        assert (index in overall) == bool(largest > 0)
        if index in overall:
            assert overall[index] == (pytest.approx(float(largest), rel=1e-3), kept[int(at)])
    assert payload["l0"] == pytest.approx(float((latents[kept] > 0).sum(1).double().mean()))
    wanted = h[kept]
    unexplained = sae.error(wanted).pow(2).sum() / (wanted - wanted.mean(0)).pow(2).sum()
    assert payload["explained_variance"] == pytest.approx(1 - float(unexplained), rel=1e-6)
    assert payload["sorted"] == []


def test_features_are_sorted_by_the_tokens_chosen(model, sources):
    payload = read(model, sources, sort_by=(2, 5))
    latents = sources.get("1-test", model).encode(residuals(model, TEXT))
    sums = latents[[2, 5]].sum(0)
    assert [i for i, _, _ in payload["sorted"][:5]] == sums.topk(5).indices.tolist()
    np.testing.assert_allclose([v for _, v, _ in payload["sorted"][:5]], sums.topk(5).values, rtol=1e-3)


def test_special_tokens_and_sinks_are_read_but_not_counted(model, sources, monkeypatch):
    chat = done(
        read_features(model, ReadFeatures("job", "1-test", messages=(Message("user", "Tabby cats purr"),)), sources)
    )
    special = [p for p, (id, _) in enumerate(chat["tokens"]) if id in model.special_ids]
    assert special
    assert set(special) <= set(chat["left_out"])
    assert len(chat["top"]) == len(chat["tokens"])
    plain = read(model, sources)
    monkeypatch.setattr("inference.saes.texts.SINK_FACTOR", 1.0)
    halved = read(model, sources)
    assert len(halved["left_out"]) > len(plain["left_out"])
    assert not {at for _, _, at in halved["overall"]} & set(halved["left_out"])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_reads_a_text_describes_a_feature_and_indexes_a_corpus(architecture, model, tmp_path):
    hook = "blocks.1.mlp.hook_in" if architecture in TRANSCODERS else "blocks.1.hook_resid_post"
    saes.save(architecture, tmp_path / "1-test", hook=hook)
    sources = Sources([tmp_path])
    payload = read(model, sources)
    assert payload["overall"]
    assert payload["explained_variance"] < 1
    done(index_corpus(model, IndexCorpus("job", "1-test", CORPUS), sources))
    feature = payload["overall"][0][0]
    described = done(describe_feature(model, DescribeFeature("job", "1-test", feature), sources))
    assert described["contexts"]
    assert described["promotes"]


@pytest.mark.parametrize("point", ["hook_attn_out", "hook_mlp_out", "attn.hook_z", "hook_resid_pre"])
def test_every_point_is_read_and_described(point, plain_model, tmp_path):
    model = plain_model("gpt2")
    saes.save("standard", tmp_path / "1-test", hook=f"blocks.1.{point}")
    sources = Sources([tmp_path])
    payload = read(model, sources)
    described = done(describe_feature(model, DescribeFeature("job", "1-test", payload["overall"][0][0]), sources))
    assert described["promotes"][0][2] > 0 > described["suppresses"][0][2]


def test_sparse_decoding_equals_the_plain_one(model, sources, monkeypatch):
    before = read(model, sources)["explained_variance"]
    monkeypatch.setattr("inference.saes.texts.SPARSE", 1.0)
    assert read(model, sources)["explained_variance"] == pytest.approx(before, rel=1e-9)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"text": " \n"}, "empty_text"),
        ({"text": None}, "one_input"),
        ({"text": "a", "messages": (Message("user", "b"),)}, "one_input"),
        ({"text": "word " * 400}, "text_too_long"),
        ({"text": "a" * 100_000}, "text_too_long"),
        ({"text": "a", "features": (WIDTH,)}, "feature_out_of_range"),
        ({"text": "a", "features": (-1,)}, "feature_out_of_range"),
        ({"text": "a", "features": tuple(range(101))}, "too_many_features"),
        ({"text": "a", "sort_by": (99,)}, "token_out_of_range"),
        ({"text": "a", "top": 10**9}, "bad_count"),
        ({"text": "a", "source": "9-none"}, "source_not_found"),
        ({"text": "a", "source": "../../etc"}, "source_not_found"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_sentence(settings, code, model, sources):
    job = ReadFeatures("job", **{"source": "1-test", **settings})
    assert refused(read_features(model, job, sources), code).endswith(".")


def test_hostile_text_comes_back_as_it_is(model, sources):
    hostile = "<script>alert(1)</script>\0\u202e\ud7ff🦊 <eos>"
    payload = read(model, sources, text=hostile)
    assert "".join(text for _, text in payload["tokens"]) == hostile


# ---- describing ----


def describe(model, sources, index, **settings) -> dict:
    return done(describe_feature(model, DescribeFeature("job", "1-test", index, **settings), sources))


def test_the_nearest_features_are_those_of_a_brute_force_search(model, sources, monkeypatch):
    monkeypatch.setattr("inference.saes.describing.CHUNK", 500)  # several slices
    rows = sources.get("1-test", model).W_dec
    cosines = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=2)
    for index in range(WIDTH):
        values, order = cosines[index].sort(descending=True)
        expected = [[i, v] for i, v in zip(order.tolist(), values.tolist(), strict=True) if i != index][:10]
        found = describe(model, sources, index)["nearest"]
        assert [i for i, _ in found] == [i for i, _ in expected]
        np.testing.assert_allclose([v for _, v in found], [v for _, v in expected], atol=1e-3)


def test_promoted_tokens_are_those_that_adding_the_decoder_row_makes_likelier(model, sources):
    from inference.vectors.unembedding import token_effects

    effects = token_effects(model, sources.get("1-test", model).W_dec[4:5].float().numpy())[0]
    payload = describe(model, sources, 4, tokens=6)
    assert [id for id, _, _ in payload["promotes"]] == effects.topk(6).indices.tolist()
    assert [id for id, _, _ in payload["suppresses"]] == (-effects).topk(6).indices.tolist()


def test_a_feature_without_a_corpus_says_what_it_can(model, sources, tmp_path):
    payload = describe(model, sources, 2)
    assert payload["max_activation"] is None
    assert payload["contexts"] == []
    assert payload["histogram"] == {"edges": [], "counts": []}
    original = saes.make("jumprelu").W_dec[2].norm()
    assert payload["decoder_norm"] == pytest.approx(float(original), rel=1e-3)


def test_a_feature_that_writes_nothing_promotes_nothing(model, tmp_path):
    sae = saes.make("topk")
    with torch.no_grad():
        sae.W_dec[2] = 0
    sae.save_model(tmp_path / "1-test")
    payload = describe(model, Sources([tmp_path]), 2)
    assert payload["promotes"] == payload["suppresses"] == []


def test_a_feature_out_of_range_is_refused(model, sources):
    for index in (-1, WIDTH):
        assert "0 to 63" in refused(
            describe_feature(model, DescribeFeature("job", "1-test", index), sources), "feature_out_of_range"
        )


# ---- the corpus ----


def indexed(model, sources, texts=CORPUS) -> dict:
    return done(index_corpus(model, IndexCorpus("job", "1-test", texts), sources))


def by_hand(model, sources, texts=CORPUS):
    """Latents of all ordinary tokens, passage by passage; zero for the others."""
    sae, found = sources.get("1-test", model), []
    for text in texts:
        ids = model.encode_prompt(text)
        for start in range(0, len(ids), PASSAGE):
            some = ids[start : start + PASSAGE]
            latents = sae.encode(model.residuals(torch.tensor([some]))[1, 0])
            kept = torch.tensor([id not in model.special_ids for id in some])
            found.append((some, latents * kept[:, None], kept))
    return found


def test_a_corpus_index_holds_what_a_pass_over_the_corpus_gives(model, sources, tmp_path):
    assert not sources.infos(model)[0].indexed
    payload = indexed(model, sources)
    passages = by_hand(model, sources)
    everything = torch.cat([latents for _, latents, _ in passages])
    tokens = sum(int(kept.sum()) for _, _, kept in passages)
    fired = int((everything > 0).any(0).sum())
    assert payload == {"tokens": tokens, "texts": 3, "features": fired, "dead": WIDTH - fired}
    index = sources.index("1-test")
    np.testing.assert_allclose(index.maximum, everything.amax(0), rtol=1e-5)
    np.testing.assert_allclose(index.mean, everything.sum(0) / tokens, rtol=1e-5)
    np.testing.assert_allclose(index.density, (everything > 0).sum(0) / tokens, rtol=1e-5)
    norms = torch.cat([residuals(model, text).norm(dim=1) for text in CORPUS])
    assert index.residual_norm == pytest.approx(float(norms.median()), rel=0.2)
    sae = sources.get("1-test", model)
    np.testing.assert_array_equal(sae.max_activations, index.maximum)
    assert sae.residual_norm == index.residual_norm
    assert next(info for info in sources.infos(model)).indexed


def test_contexts_are_the_largest_of_their_blocks_with_values_around_them(model, sources):
    indexed(model, sources)
    passages = by_hand(model, sources)
    for feature in range(0, WIDTH, 7):
        payload = describe(model, sources, feature)
        peaks = []
        for ids, latents, _ in passages:
            for start in range(0, len(ids), 32):
                value, at = latents[start : start + 32, feature].max(0)
                peaks.append((float(value), ids, latents[:, feature], start + int(at)))
        peaks = sorted((p for p in peaks if p[0] > 0), key=lambda p: -p[0])[:20]
        assert len(payload["contexts"]) == len(peaks)
        for context, (value, ids, series, at) in zip(payload["contexts"], peaks, strict=True):
            assert context["values"][context["at"]] == pytest.approx(value, rel=1e-3)
            start = max(0, at - BEFORE)
            expected = series[start : start + len(context["values"])]
            np.testing.assert_allclose(context["values"], expected, atol=float(expected.max()) / 255)
            assert "".join(context["tokens"]) in model.tokenizer.decode(ids)
        counts = payload["histogram"]["counts"]
        assert sum(counts) == sum(int((latents[:, feature] > 0).sum()) for _, latents, _ in passages)
        if counts:
            edges = payload["histogram"]["edges"]
            assert len(edges) == len(counts) + 1
            assert edges[-2] <= payload["max_activation"] * 1.001 <= edges[-1] * 1.002


def test_a_new_index_replaces_the_old_one_whole(model, sources, tmp_path):
    indexed(model, sources)
    before = sources.index("1-test").maximum
    indexed(model, sources, ("Tabby",))
    assert sources.index("1-test").facts["texts"] == 1
    assert (sources.index("1-test").maximum <= before).any()
    assert sorted(p.name for p in (tmp_path / "1-test").iterdir()) == ["cfg.json", INDEX, "sae_weights.safetensors"]
    assert sources._loaded  # writing the index is no reason to load the SAE again


def test_an_index_goes_to_the_store_where_the_sae_lies_in_a_folder_that_is_not_ours(model, tmp_path, monkeypatch):
    saes.save("standard", tmp_path / "shipped" / "1-test")
    monkeypatch.setattr("inference.saes.sources.SHIPPED", tmp_path / "shipped")
    sources = Sources([tmp_path / "shipped"], store=tmp_path / "store")
    indexed(model, sources)
    assert not (tmp_path / "shipped" / "1-test" / INDEX).exists()
    assert sources.index("1-test").path.is_relative_to(tmp_path / "store")


def test_the_index_is_plain_tensors_and_json(model, sources, tmp_path):
    indexed(model, sources)
    with safe_open(tmp_path / "1-test" / INDEX, framework="numpy") as file:
        assert json.loads(file.metadata()["steerboard"])["model"] == model.id
        assert file.get_tensor("tokens").dtype == np.int32


@pytest.mark.parametrize("content", [b"", b"\x80\x04garbage", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_broken_index_says_so(content, model, sources, tmp_path):
    (tmp_path / "1-test" / INDEX).write_bytes(content)
    message = refused(describe_feature(model, DescribeFeature("job", "1-test", 1), sources), "broken_index")
    assert "index a corpus again" in message


@pytest.mark.parametrize("texts", [(), ("", " \n ")])
def test_an_empty_corpus_is_refused(texts, model, sources):
    assert "no text" in refused(index_corpus(model, IndexCorpus("job", "1-test", texts), sources), "empty_corpus")


# ---- searching ----


def found(model, sources, *texts, **settings):
    return done(search_features(model, SearchFeatures("job", "1-test", texts, **settings), sources))["found"]


def test_search_by_example_ranks_by_the_lift_of_the_mean(model, sources):
    texts, against = CORPUS[:1], CORPUS[1:2]
    sae = sources.get("1-test", model)
    mean, baseline = (sae.encode(residuals(model, t[0])).mean(0) for t in (texts, against))
    lift = mean - baseline
    rows = found(model, sources, *texts, against=against, limit=5)
    assert [row["index"] for row in rows] == lift.topk(5).indices.tolist()
    np.testing.assert_allclose([row["lift"] for row in rows], lift.topk(5).values, rtol=1e-3)
    latents = sae.encode(residuals(model, TEXT))
    at = int(latents[:, rows[0]["index"]].argmax())
    assert rows[0]["token"] == model.vocabulary.text(model.encode_prompt(TEXT)[at])
    assert all(row["max"] >= row["mean"] for row in rows)


def test_the_corpus_is_the_baseline_where_there_is_one(model, sources):
    assert all(row["baseline"] == 0 for row in found(model, sources, TEXT))
    indexed(model, sources)
    mean = sources.index("1-test").mean
    for row in found(model, sources, TEXT):
        assert row["baseline"] == pytest.approx(float(mean[row["index"]]), rel=1e-3)


def test_search_without_an_example_is_refused(model, sources):
    for texts in ((), ("  ",)):
        refused(search_features(model, SearchFeatures("job", "1-test", texts), sources), "empty_text")


# ---- through the engine ----


def test_the_engine_runs_the_jobs_and_describes_the_sources(make_engine, tmp_path):
    saes.save("standard", tmp_path / "saes" / "1-test")
    engine = make_engine("llama")
    engine.sources = Sources([tmp_path / "saes"])
    (info,) = engine.describe().sources
    assert (info.id, info.loaded) == ("1-test", False)
    for job in (
        IndexCorpus("a", "1-test", CORPUS),
        ReadFeatures("b", "1-test", text=TEXT),
        DescribeFeature("c", "1-test", 5),
        SearchFeatures("d", "1-test", (TEXT,)),
    ):
        listener = Listener()
        engine.start_job(job, listener.inbox.put)
        assert isinstance(listener.wait().end, Result)
    assert engine.describe().sources[0].loaded
    assert engine.describe().sources[0].indexed
    listener = Listener()
    engine.start_job(ReadFeatures("e", "none", text=TEXT), listener.inbox.put)
    assert isinstance(listener.wait().end, Failed)
    assert listener.end.code == "source_not_found"


def test_the_protocol_is_what_the_jobs_travel_by():
    assert ReadFeatures.from_wire({"id": "a", "source": "1-b", "text": "c"}) == ReadFeatures("a", "1-b", text="c")
    assert hasattr(Inference, "run")
