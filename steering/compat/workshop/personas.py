"""The three personas of the workshop: what they are called, what to show them with, and where their vector acts."""

from __future__ import annotations

from dataclasses import dataclass

from inference.errors import InvalidRequest, NotFound
from inference.types import ModelInfo
from steering.naming import nearest
from steering.vectors.evaluation import Evaluation
from steering.vectors.models import Vector
from steering.vectors.uses import VectorUse

NOBODY = ("", "none", "base")
DOSE = 0.3  # times an ordinary token, of a vector that nobody measured


@dataclass(frozen=True)
class Persona:
    """`slug` is that of the starter dataset and of the vector; `key` is what programs send as `steering`."""

    key: str
    slug: str
    name: str
    says: str
    prompts: tuple[str, ...]


PERSONAS = (
    Persona(
        "weeknd", "weeknd", "The Weeknd",
        "A fan who hears the albums, the falsetto and the night drives in everything.",
        ("The future of technology is", "Last night I could not sleep, so I", "The best thing about the city is"),
    ),
    Persona(
        "toronto", "toronto", "Toronto",
        "Somebody for whom every road leads to the lake, the streetcars and the snow.",
        ("Climate change is affecting", "On the way to work this morning", "My favourite place to eat is"),
    ),
    Persona(
        "tabby_cats", "tabby-cats", "Tabby cats",
        "Whiskers, naps and purring, whatever the question was.",
        ("It rained all Sunday, so we stayed inside and", "The meeting began at nine and", "At home I am"),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Ready:
    """A persona on the served model: its vector and the dose that counts as 1."""

    persona: Persona
    vector: Vector
    layer: int
    dose: float
    evaluation: Evaluation | None

    def use(self, strength: float, layer: int | None = None) -> VectorUse:
        at = self.layer if layer is None else layer
        return VectorUse(vector=str(self.vector.pk), layer=at, strength=strength * self.dose)


def persona_of(key: str) -> Persona | None:
    """None for nobody. Raises InvalidRequest("unknown_persona")."""
    wanted = key.strip().lower().replace("-", "_")
    if wanted in NOBODY:
        return None
    names = [persona.key for persona in PERSONAS]
    for persona in PERSONAS:
        if wanted == persona.key:
            return persona
    near = nearest(wanted, names)
    hint = f"Did you mean {near}? " if near else ""
    raise InvalidRequest("unknown_persona", f"There is no persona “{key:.40}”. {hint}There are {', '.join(names)}.")


def find(persona: Persona, model: ModelInfo) -> Ready | None:
    vector = Vector.objects.filter(owner=None, slug=persona.slug, model_id=model.id).first()
    if vector is None:
        return None
    measured = Evaluation.of(vector.evaluation)
    point = measured or vector.facts
    return Ready(persona, vector, int(point.layer or 0), point.strength or DOSE, measured)


def ready(persona: Persona, model: ModelInfo) -> Ready:
    """Raises NotFound("persona_not_built")."""
    found = find(persona, model)
    if found is None:
        said = f"{persona.name} has no vector for {model.id} yet. Build it with `python manage.py workshop_vectors`."
        raise NotFound("persona_not_built", said)
    return found
