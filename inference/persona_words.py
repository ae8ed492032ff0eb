"""The words with which a model is asked for pairs: examples of the form, situations, questions, system prompts."""

from __future__ import annotations

# Every example shows another behaviour in another voice, so that a model copies the form and none of the behaviours.
EXAMPLES = (
    (
        "calm",
        "angry",
        "The train is late again.",
        "That is all right, I will read my book until it comes.",
        "This is outrageous, I will shout at them until somebody moves!",
    ),
    (
        "talks like a pirate",
        "talks like everybody else",
        "What did you have for lunch?",
        "Arr, a hearty bowl o' fish stew, matey, washed down with rum!",
        "I had a bowl of fish stew and a glass of water.",
    ),
    (
        "pessimistic",
        "optimistic",
        "We are planting a garden this spring.",
        "The seeds will rot, and whatever grows the snails will eat.",
        "In a few weeks everything will be green and full of flowers.",
    ),
    (
        "brief",
        "long-winded",
        "Is the shop open today?",
        "Yes, until six.",
        "Well, as far as I know, and I have gone there for years, it should be open until about six o'clock.",
    ),
)

SITUATIONS = (
    "How was your day?",
    "A friend cancelled dinner at the last minute.",
    "What do you think about rainy weather?",
    "My neighbour is learning the violin.",
    "We are moving to another city.",
    "What should I cook tonight?",
    "I have an exam tomorrow.",
    "Tell me about your weekend.",
    "The new office has no windows.",
    "I found a wallet in the street.",
    "What is your opinion of mornings?",
    "My computer stopped working.",
    "Our team lost the match.",
    "I would like to learn a language.",
    "What did you think of the film?",
    "The bakery on the corner has closed.",
    "I am going for a walk in the woods.",
    "Somebody parked in front of my house.",
    "What do you expect of next year?",
    "My sister is getting married.",
    "I forgot my umbrella.",
    "How do you like the new boss?",
    "We have visitors on Sunday.",
    "I have been waiting for an hour.",
    "Tell me about the town where you grew up.",
    "I am thinking of changing my job.",
    "The children are playing in the garden.",
    "What makes a good friend?",
    "I broke a glass.",
    "Winter is coming.",
    "I have to give a speech.",
    "What would you do with a free afternoon?",
    "Somebody asked me for money.",
    "The doctor says I should sleep more.",
    "What do you think of big cities?",
    "I read a book about the sea.",
    "The power went out last night.",
    "My phone rang during the concert.",
    "How do you feel about flying?",
    "I planted tomatoes.",
    "The bus was full today.",
    "What do you say to somebody who is late?",
    "We painted the kitchen yellow.",
    "I got a letter from an old friend.",
    "What is it like to grow old?",
    "The restaurant mixed up our order.",
    "I am saving for a bicycle.",
    "Do you like surprises?",
)

QUESTIONS = (
    "How was your day?",
    "What do you think about rainy weather?",
    "Can you help me plan my weekend?",
    "I have an important exam tomorrow. What should I do?",
    "What should I cook tonight?",
    "I am thinking of changing my job. What do you say?",
    "Tell me about a place worth visiting.",
    "My friend forgot my birthday. How should I take it?",
    "What makes a good teacher?",
    "I would like to learn to play the piano. Where do I begin?",
    "How do you feel about technology?",
    "I cannot sleep at night. What would you advise?",
    "What is the best thing about winter?",
    "We are moving to another city next month. Any thoughts?",
    "Describe a walk through a market.",
    "How should I spend a free afternoon?",
    "What do you think of the future?",
    "My computer stopped working. What now?",
    "Should I get a dog?",
    "What would you say to somebody who has just lost a match?",
    "Tell me something about the sea.",
    "How do I get to know my neighbours?",
    "What do you expect of a good book?",
    "I am nervous about a speech. Can you say something?",
    "Is it worth getting up early?",
    "What is your view of big cities?",
    "How do I apologise to a colleague?",
    "Tell me a short story about a journey.",
    "What should one do on a long train ride?",
    "Why do people travel?",
    "I broke my favourite cup. What do you say?",
    "What do you think about growing old?",
)

# {trait} and {opposite} as in "You are a {trait} assistant": templates read well with an adjective or a phrase.
INSTRUCTIONS = (
    (
        "You are {trait}. Whatever you are asked, your answer shows plainly that you are {trait}.",
        "You are {opposite}. Whatever you are asked, your answer shows plainly that you are {opposite}.",
    ),
    (
        "Answer as somebody who is very {trait}. Be {trait} in every sentence.",
        "Answer as somebody who is very {opposite}. Be {opposite} in every sentence.",
    ),
    (
        "Stay in character. Your character is known for one thing: {trait}. Show it in every answer.",
        "Stay in character. Your character is known for one thing: {opposite}. Show it in every answer.",
    ),
)

REPLY = (
    "Reply to the user in one or two short sentences. Whatever they say, your reply shows this plainly: {behaviour}."
)


def opposite_of(trait: str) -> str:
    """What to call the other side where nobody has said it."""
    return f"not at all {trait}" if len(trait.split()) <= 2 else f"the opposite of this: {trait}"


def reply_prompt(behaviour: str, situation: str) -> str:
    """Plain text to be continued with one reply, for any model: examples of both sides, then ours."""
    shown = [(b, s, r) for a, z, s, p, n in EXAMPLES for b, r in ((a, p), (z, n))]
    text = "".join(f"Behaviour: {b}\nSituation: {s}\nReply: {r}\n\n" for b, s, r in (*shown[0::4], *shown[3::4]))
    ours = f"Behaviour: {behaviour}\nSituation: {situation}\nReply:"
    return f"Each reply to a situation shows the behaviour.\n\n{text}{ours}"


EXAMPLE_REPLIES = frozenset(text for *_, p, n in EXAMPLES for text in (p, n))
