"""Conversations that a model writes itself, to train on what it does in use. Needs a client alone, no torch."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from inference.client import Inference
from inference.errors import EngineFault, Unavailable
from inference.types import Failed, Finished, GenerationRequest, Message, SamplingParams, Token

AT_ONCE = 48
MAX_TOKENS = 180
MOST_FAILED = 0.1

ASKS = (
    "What is {}?",
    "Tell me something surprising about {}.",
    "Explain {} to a child.",
    "Write a short poem about {}.",
    "Write the opening of a story about {}.",
    "What do people get wrong about {}?",
    "I have to talk about {} tomorrow. Where do I begin?",
    "Give me three tips about {}.",
    "How has {} changed in the last hundred years?",
    "Somebody was rude to me about {}. What should I answer?",
    "Make the case for {}, then the case against.",
    "Write a friendly e-mail to a neighbour about {}.",
    "What would a scientist say about {}?",
    "List five words that have to do with {} and say what each means.",
    "I am sad because of {}. Can you cheer me up?",
    "Is {} good or bad for us?",
    "Describe {} as if you were there.",
    "What is the history of {}?",
    "Write a dialogue between two friends about {}.",
    "What does it cost to get started with {}?",
    "Name a famous person connected with {} and say why.",
    "Plan one day around {}.",
    "Write a Python function that has something to do with {}.",
    "Give a recipe or a method that involves {}.",
    "Translate a sentence about {} into French.",
)
SUBJECTS = (
    "cats", "the moon", "bread", "football", "rain", "loneliness", "democracy", "the ocean", "tea", "trains",
    "grandparents", "algebra", "winter", "money", "jazz", "gardening", "honesty", "volcanoes", "school",
    "the Roman Empire", "anger", "bicycles", "dreams", "salt", "computers", "marriage", "forests", "chess", "taxes",
    "medicine", "birds", "cooking for one", "Paris", "electricity", "patience", "war", "toys", "language",
    "moving house", "stars", "dogs", "noise", "hospitals", "the desert", "fashion", "memory", "insects", "theatre",
    "fear of flying", "coffee", "farming", "robots", "birthdays", "justice", "mountains", "sleep", "newspapers",
    "swimming", "friendship", "iron",
)  # fmt: skip


def questions(count: int, seed: int) -> list[str]:
    """`count` of all questions, in an order that the seed decides; from the first again where there are not so many."""
    every = [ask.format(subject) for ask in ASKS for subject in SUBJECTS]
    random.Random(seed).shuffle(every)  # noqa: S311 (an order, no secret)
    return [every[i % len(every)] for i in range(count)]


async def sample_chats(
    client: Inference, count: int, *, seed: int = 0, model: str = "", tell: Callable[[str], None] = lambda note: None
) -> list[tuple[Message, ...]]:
    """One question and answer each, in the order of the questions. Raises InferenceError where many answers fail."""
    gate, done = asyncio.Semaphore(AT_ONCE), 0

    async def one(index: int, question: str) -> tuple[Message, ...] | None:
        nonlocal done
        async with gate:
            asked = Message("user", question)
            answer = await _answer(client, f"chat-{seed}-{index}", model, asked, seed * 1_000_003 + index)
            done += 1
            tell(f"{done} of {count} conversations written")
            return (asked, Message("assistant", answer)) if answer.strip() else None

    asked = [one(i, question) for i, question in enumerate(questions(count, seed))]
    found = [chat for chat in await asyncio.gather(*asked) if chat]
    if len(found) < (1 - MOST_FAILED) * count:
        raise Unavailable(
            "chats_failed", f"The model wrote only {len(found)} of {count} conversations. Try again, or ask for fewer."
        )
    return found


async def _answer(client: Inference, id: str, model: str, asked: Message, seed: int) -> str:
    text = ""
    sampling = SamplingParams(max_tokens=MAX_TOKENS, temperature=0.8, top_p=0.95, seed=seed, fit=True)
    async for event in client.generate(GenerationRequest(id, model, messages=(asked,), sampling=sampling)):
        if isinstance(event, Token | Finished):
            text += event.text
        elif isinstance(event, Failed):
            raise EngineFault(event.code, event.message)
    return text
