"""A vector by what a person would write for it: the id of its library entry or of its content, its slug or its name."""

from __future__ import annotations

from typing import Any

from django.db.models import Q

from inference.errors import InvalidRequest, NotFound
from inference.types import ModelInfo
from steering.naming import id_in
from steering.vectors.models import Vector

SHOWN = 12  # names in a sentence


def find_vector(user: Any, name: str, model: ModelInfo) -> Vector:
    """The vector that `user` means: of `model` first, one's own before starters; a name ignores case.

    Raises NotFound("vector_not_found") saying which exist, InvalidRequest("vector_ambiguous").
    """
    visible = Vector.objects.visible_to(user)
    if "\0" in name:  # no database can be asked for that
        raise _not_found(visible, name[:10], model)
    found = list(visible.filter(_is_called(name)))
    found = [v for v in found if v.usable_on(model)] or found
    found = [v for v in found if not v.is_starter] or found
    if not found:
        raise _not_found(visible, name, model)
    if len({v.content_id for v in found}) > 1:
        ids = ", ".join(str(v.pk) for v in found[:SHOWN])
        raise InvalidRequest("vector_ambiguous", f"{len(found)} vectors are called {name:.60}. Name one by id: {ids}.")
    return found[0]


def _is_called(name: str) -> Q:
    return Q(name__iexact=name) | Q(slug__iexact=name) | Q(content_id=name.lower()) | Q(pk=id_in(name))


def _not_found(visible: Any, name: str, model: ModelInfo) -> NotFound:
    names = list(dict.fromkeys(v.slug or v.name for v in visible.in_library_order() if v.usable_on(model)))
    known = f"There are {', '.join(names[:SHOWN])}." if names else "There is none for this model yet: build one."
    return NotFound("vector_not_found", f"Your library has no vector {name:.60}. {known}")
