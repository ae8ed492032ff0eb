"""A short text is read without the tokenizer's threads, and gives what the tokenizer gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from inference.models.loader import load_tokenizer
from inference.tokens import SHORT, token_ids
from tests.inference.conftest import CACHE

TEXTS = ("", " ", "Hello", "  two  spaces\n\n", "naïve 日本語 🙂🙂", "<|im_start|>user\n", "<s></s><bos>")
TEXTS += ("a" * SHORT, "b " * SHORT)


def same(tokenizer: Any, text: str) -> None:
    for special in (True, False):
        expected = tokenizer(text, add_special_tokens=special)["input_ids"]
        assert token_ids(tokenizer, text, special=special) == expected


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("family", ["llama", "default"])
def test_ids_are_the_tokenizers_own(tiny_folder: Callable[[str], Path], family: str, text: str) -> None:
    name = family if family == "default" else str(tiny_folder(family))
    same(load_tokenizer(name, cache_dir=CACHE), text)


def test_no_thread_is_asked_for_a_short_text(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_tokenizer("default", cache_dir=CACHE)
    expected = tokenizer("Hello there")["input_ids"]
    monkeypatch.setattr(PreTrainedTokenizerFast, "__call__", lambda *_, **__: pytest.fail("the tokenizer was called"))
    assert token_ids(tokenizer, "Hello there") == expected


def test_what_another_call_has_set_changes_nothing() -> None:
    tokenizer = load_tokenizer("default", cache_dir=CACHE)
    text = "one two three four five six"
    whole = tokenizer(text)["input_ids"]
    tokenizer(text, truncation=True, max_length=2)
    assert token_ids(tokenizer, text) == whole
    tokenizer([text, "one"], padding=True)
    assert token_ids(tokenizer, "one") == tokenizer("one")["input_ids"]


def test_special_tokens_are_split_where_the_tokenizer_is_told_so() -> None:
    tokenizer = load_tokenizer("default", cache_dir=CACHE)
    tokenizer.split_special_tokens = True
    assert len(token_ids(tokenizer, "<|im_end|>")) > 1
    same(tokenizer, "<|im_end|>")


def test_a_tokenizer_that_does_more_with_a_text_is_asked_itself() -> None:
    class Turned(PreTrainedTokenizerFast):  # type: ignore[misc]
        def _encode_plus(self, text: Any, *args: Any, **kwargs: Any) -> Any:
            return super()._encode_plus(text[::-1], *args, **kwargs)

    plain = load_tokenizer("default", cache_dir=CACHE)
    turned = Turned(tokenizer_object=plain.backend_tokenizer)
    assert token_ids(turned, "abc def") == token_ids(plain, "fed cba")
