"""`manage.py experiment find calm`: run a recipe without a page, and print what it shows.

The same command goes on with what one that was killed has left.
"""

from __future__ import annotations

import dataclasses
from argparse import ArgumentParser
from typing import Any

from django.core.management import BaseCommand, CommandError

from inference.errors import InferenceError
from steering import gateway
from steering.accounts.models import User
from steering.datasets.behaviours import WITHOUT_WORDS
from steering.experiments import defaults
from steering.experiments.carried import run_to_end
from steering.experiments.defaults import says_of
from steering.experiments.estimate import estimate
from steering.experiments.management.commands.presets import served
from steering.experiments.printing import table_of
from steering.experiments.settings import NAMED, Behaviour, Settings
from steering.vectors.lookup import find_vector


class Command(BaseCommand):
    help = "Run an experiment on vectors of the library, starters by their slug, and print its table."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("recipe", choices=["sweep", "find", "evaluate"])
        parser.add_argument("vectors", nargs="+", help="names, slugs or ids; one experiment for each")
        parser.add_argument("--user", default="", help="e-mail of the account it is for; the first one by default")
        parser.add_argument("--layers", type=int, nargs="*", help="instead of those around the recommended one")
        parser.add_argument("--strengths", type=float, nargs="*", help="of a sweep, in relative units")
        parser.add_argument("--layer", type=int, help="of an evaluation")
        parser.add_argument("--strength", type=float, help="of an evaluation")
        parser.add_argument("--floor", type=float, help="coherence floor, 0 to 1")
        parser.add_argument("--tokens", type=int, help="most tokens of an answer")
        parser.add_argument("--measure", choices=["naming", "judge"], help="instead of the starter's words")
        parser.add_argument("--concept", help="what naming and the judge look for, such as calm and patient words")
        parser.add_argument("--directions", type=int, help="random directions for the null band")

    def handle(self, *args: Any, recipe: str, vectors: list[str], user: str, **options: Any) -> None:
        owner = User.objects.filter(email__iexact=user).first() if user else User.objects.first_account()
        if owner is None:
            raise CommandError(f"There is no account {user}. Name one that exists, or leave --user out.")
        model = served()
        try:
            for name in vectors:
                vector = find_vector(owner, name, model)
                settings = settings_of(recipe, vector, model, options)
                expected = estimate(settings, model)
                self.stdout.write(
                    f"{recipe} {vector.name}: {expected.points} points, {expected.tokens:,} tokens at most"
                )
                self.stdout.write(table_of(run_to_end(owner, recipe, vector.name, settings, model)))
        except InferenceError as error:
            raise CommandError(f"{error.message} ({error.code})") from None
        finally:
            gateway.close()


def settings_of(recipe: str, vector: Any, model: Any, options: dict[str, Any]) -> Settings:
    made: Any
    if recipe == "evaluate":
        made = defaults.evaluate_of(vector, model, options["layer"], options["strength"])
    else:
        made = (defaults.sweep_of if recipe == "sweep" else defaults.find_of)(vector, model)
    fields = {field.name for field in dataclasses.fields(made)}
    wanted = {"layers": _tuple(options["layers"]), "strengths": _tuple(options["strengths"])}
    wanted |= {name: options[name] for name in ("floor", "directions")}
    changed = {name: value for name, value in wanted.items() if value is not None and name in fields}
    if options["tokens"] is not None:
        changed["writing"] = dataclasses.replace(made.writing, max_tokens=options["tokens"])
    changed |= _named(made, fields, options["measure"], options["concept"])
    return dataclasses.replace(made, **changed)


def _named(made: Settings, fields: set[str], measure: str | None, concept: str | None) -> dict[str, Any]:
    """Another measure, or another name for what is measured."""
    if measure is None and concept is None:
        return {}
    name = made.behaviour.concept if concept is None else concept
    kind = measure or (made.behaviour.kind if made.behaviour.kind in NAMED else WITHOUT_WORDS)
    behaviour = Behaviour(kind, says_of(kind, name), defaults.UNITS[kind], concept=name)  # type: ignore[arg-type]
    return {"behaviour": behaviour} | ({"concept": name} if "concept" in fields else {})


def _tuple(values: list[Any] | None) -> tuple[Any, ...] | None:
    return tuple(values) if values else None
