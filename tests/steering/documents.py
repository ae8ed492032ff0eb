"""Collections and answered questions, as the pages and a worker would leave them."""

from __future__ import annotations

import copy
from typing import Any

from inference.raag import AnswerFromPassages, Passage
from inference.types import ModelInfo
from steering.accounts.models import User
from steering.retrieval import library
from steering.retrieval.asking import OWN
from steering.retrieval.library import Draft
from steering.retrieval.models import Collection, Question

LIGHT = "The lighthouse of Kessin was built in 1874 by Mara Olsted."
VILLAGE = "Aldermoor is a village on the river Wend."
ASKED = "Who built the lighthouse?"
Json = dict[str, Any]


def attributed(**changes: Any) -> Json:
    """What `AttributeAnswer` says of an answer of three tokens from two passages."""
    drops = [[0.02, 4.1], [-0.05, 1.3], [0.01, 0.04]]
    predicted = [[0.0, 3.5], [0.1, 1.0], [0.0, 0.1]]
    edges = [
        {
            "token": t,
            "span": 1,
            "drop": drops[t][1],
            "predicted": predicted[t][1],
            "best_layer": 1,
            "layers": [0.5, 0.9],
        }
        for t in (0, 1)
    ]
    return {
        "prompt_tokens": [[1, "Use"], [2, " them"], [3, "."]] * 5,
        "answer_tokens": [[7, "Mara"], [8, " Olsted"], [9, "."]],
        "spans": [{"id": "1#0", "block": [2, 5], "text": [3, 5]}, {"id": "2#0", "block": [5, 9], "text": [6, 9]}],
        "logprobs": [-0.1, -0.2, -0.3], "drops": drops, "predicted": predicted, "best_layers": [[0, 1]] * 3,
        "together": [4.3, 1.2, 0.1], "edges": edges, "pearson": 0.99, "spearman": 0.8, "epsilon": 0.1,
        "sums": {"together": 5.6, "validated": 5.4, "spans": [-0.02, 5.44]}, "dtype": "float32",
        "view_dtype": "float32", "disagreement": 1e-5, "seconds": {"measuring": 0.5, "estimating": 0.5},
        "notes": ["Where two passages say the same, look at the drop of all together."],
    } | changes  # fmt: skip


def answered(**changes: Any) -> Json:
    """What `AnswerFromPassages` says."""
    ranking = {"precision_at_1": 1.0, "precision_at_3": 0.333333, "precision_at_k": 0.5, "ndcg_at_3": 1.0}
    ranking |= {"average_precision": 1.0, "auprc": 1.0, "k": 2, "relevant": 1, "found": 1}
    passages = [p.to_wire() | {"label": int(p.document == "2")} for p in request().passages]
    ranked = [{"span": 1, "id": "2#0", "drop": 5.44, "label": 1}, {"span": 0, "id": "1#0", "drop": -0.02, "label": 0}]
    return attributed() | copy.deepcopy({
        "question": ASKED, "answer": "Mara Olsted.", "finish_reason": "stop", "prompt": "Use them.\n\n[DOC 1]…",
        "chat": True, "passages": passages, "retrieval": ranking | {"precision_at_1": 0.0}, "provenance": ranking,
        "ranked": ranked, "receipt": None, "usage": [15, 4],
    }) | changes  # fmt: skip


def request() -> AnswerFromPassages:
    passages = (Passage("1#0", "1", VILLAGE, "Village", 0.03), Passage("2#0", "2", LIGHT, "Light", 0.02))
    return AnswerFromPassages("", ASKED, passages, relevant=("2",), expected=1)


def a_collection(owner: User, name: str = "Kessin", *texts: str, shared: bool = False) -> Collection:
    made = library.collection_create(owner=owner, name=name, shared=shared)
    library.documents_add(made, [Draft("", text) for text in texts or (LIGHT,)])
    return made


def an_answer(owner: User, *, model: ModelInfo | None = None, **changes: Any) -> Question:
    """A question that was answered, without a job."""
    settings = {name: value for name, value in request().to_wire().items() if name not in OWN}
    settings |= {"k": 2, "way": "hybrid", "steered_by": "", "collection": "", "searched": 2}
    fields: Json = {"text": ASKED, "settings": settings, "succeeded": True, "findings": answered()}
    fields |= {"model_id": model.id if model else "m", "revision": model.revision if model else ""}
    return Question.objects.create(owner=owner, **(fields | changes))
