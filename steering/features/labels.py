"""Labels: kept per person, shown to all where they are shared. One's own word comes before others'."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from django.db.models import QuerySet

from inference.types import FeatureRef
from steering.features.models import MAX_LABEL, FeatureLabel
from steering.refusals import need, storable

MAX_LABELS = 20_000  # of one person


def label_set(
    owner: Any, model_id: str, ref: FeatureRef, text: str, *, shared: bool = True, proposed: bool = False
) -> FeatureLabel:
    """Write one's label of a feature, in place of the one there was. Raises InvalidRequest."""
    text = " ".join(text.split())
    need(bool(text), "no_label", "A label needs a word. Type what makes the feature fire, or remove the label.")
    need(len(text) <= MAX_LABEL, "label_too_long", f"A label has at most {MAX_LABEL} characters. Shorten it.")
    storable(text, "The label")
    own = FeatureLabel.objects.owned_by(owner)
    same: dict[str, Any] = {"model_id": model_id, "source": ref.source, "index": ref.index}
    need(
        own.filter(**same).exists() or own.count() < MAX_LABELS,
        "too_many_labels",
        f"You have {MAX_LABELS:,} labels, which is the most. Remove some first.",
    )
    facts: dict[str, Any] = {"text": text, "shared": shared, "proposed": proposed}
    label, _ = FeatureLabel.objects.update_or_create(owner=owner, **same, defaults=facts)
    return label


def label_propose(owner: Any, model_id: str, ref: FeatureRef, text: str) -> FeatureLabel | None:
    """Keep what a model proposed. A person's own word is never overwritten: then nothing is kept."""
    own = FeatureLabel.objects.owned_by(owner).filter(model_id=model_id, source=ref.source, index=ref.index)
    if own.filter(proposed=False).exists():
        return None
    former = own.first()
    shared = former.shared if former else True
    return label_set(owner, model_id, ref, text[:MAX_LABEL], shared=shared, proposed=True)


def labels_of(user: Any, model_id: str, ref: FeatureRef) -> list[FeatureLabel]:
    """All that the user sees of one feature: their own first, then people's words, then models'."""
    seen = FeatureLabel.objects.visible_to(user).filter(model_id=model_id, source=ref.source, index=ref.index)
    return sorted(seen.select_related("owner"), key=lambda label: _rank(label, user))


def best_labels(user: Any, model_id: str, source: str, indices: Collection[int]) -> dict[int, FeatureLabel]:
    """The label to show for each of these features of one source."""
    if not indices:
        return {}
    seen = FeatureLabel.objects.visible_to(user).filter(model_id=model_id, source=source)
    if len(indices) <= 500:
        seen = seen.filter(index__in=list(indices))
    wanted = set(indices)
    return _best((label for label in seen if label.index in wanted), user)


def best_of_refs(user: Any, model_id: str, refs: Iterable[FeatureRef]) -> dict[FeatureRef, FeatureLabel]:
    by_source: dict[str, set[int]] = {}
    for ref in refs:
        by_source.setdefault(ref.source, set()).add(ref.index)
    return {
        FeatureRef(source, index): label
        for source, indices in by_source.items()
        for index, label in best_labels(user, model_id, source, indices).items()
    }


def _best(labels: Iterable[FeatureLabel], user: Any) -> dict[int, FeatureLabel]:
    best: dict[int, FeatureLabel] = {}
    for label in sorted(labels, key=lambda label: _rank(label, user)):
        best.setdefault(label.index, label)
    return best


def _rank(label: FeatureLabel, user: Any) -> tuple[bool, bool, float]:
    return label.proposed, label.owner_id != user.pk, -label.updated_at.timestamp()


def search(user: Any, model_id: str, words: str, source: str = "") -> QuerySet[FeatureLabel]:
    """Labels that hold every word, of one source or of all."""
    found = FeatureLabel.objects.visible_to(user).filter(model_id=model_id).select_related("owner")
    if source:
        found = found.filter(source=source)
    for word in words.split():
        found = found.filter(text__icontains=word)
    return found.order_by("proposed", "source", "index", "-updated_at")


def named(label: FeatureLabel | None, user: Any) -> dict[str, Any] | None:
    """A label as pages draw it."""
    if label is None:
        return None
    mine = label.owner_id == user.pk
    return {"text": label.text, "proposed": label.proposed, "mine": mine, "by": "" if mine else str(label.owner)}
