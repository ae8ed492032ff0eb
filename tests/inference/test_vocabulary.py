"""Bytes of single tokens, for byte-level BPE and for SentencePiece's way of writing them."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from inference.text import Vocabulary
from tests.inference import tiny

TEXT = "A calm cat — naïve 猫 🐈"


def test_bytes_of_byte_level_tokens_join_to_the_text() -> None:
    tokenizer = tiny.tokenizer()
    vocabulary = Vocabulary(tokenizer)
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert b"".join(map(vocabulary.raw, ids)) == TEXT.encode()
    assert any(vocabulary.torn(i) for i in ids)


def test_a_special_token_has_its_name_and_an_unknown_id_nothing() -> None:
    vocabulary = Vocabulary(tiny.tokenizer())
    assert vocabulary.text(1) == "<eos>"
    assert (vocabulary.raw(10**6), vocabulary.torn(10**6)) == (b"", ())


def test_spaces_and_byte_fallback_of_sentencepiece() -> None:
    words = {"<unk>": 0, "▁calm": 1, "cat": 2, "<0xE7>": 3, "<0x8C>": 4}
    inner = Tokenizer(models.BPE(words, [], unk_token="<unk>", byte_fallback=True))
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    vocabulary = Vocabulary(PreTrainedTokenizerFast(tokenizer_object=inner))
    assert [vocabulary.raw(i) for i in (1, 2, 3, 4)] == [b" calm", b"cat", b"\xe7", b"\x8c"]
    assert vocabulary.torn(3) == (0xE7,) and vocabulary.torn(1) == ()
