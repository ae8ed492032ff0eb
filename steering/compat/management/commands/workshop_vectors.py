"""`manage.py workshop_vectors`: the three personas' vectors for the model that is served.

Each is built from the pairs that come with Steerboard, read as --pooling says. Layers and doses are swept on tuning
prompts, and the best coherent point is measured on held-out ones beside base, a system prompt and random directions.
"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management import BaseCommand, CommandError

from inference.errors import InferenceError
from steering import gateway
from steering.accounts.models import User
from steering.compat.workshop.personas import PERSONAS, persona_of
from steering.experiments import named
from steering.experiments.management.commands.presets import served
from steering.vectors.forms import MOST_WINDOW, POOLINGS
from steering.vectors.starters import folder_of


class Command(BaseCommand):
    help = "Build, sweep and measure the workshop's personas on the served model."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("personas", nargs="*", help="weeknd, toronto, tabby_cats; all by default")
        parser.add_argument("--user", default="", help="e-mail of the account it is for; the first one by default")
        parser.add_argument("--pooling", choices=POOLINGS, default="mean", help="which tokens of each side are read")
        parser.add_argument("--window", type=int, default=8, help="with --pooling window: how many of the last")
        parser.add_argument("--chat", action="store_true", help="read, and measure, as a chat")
        parser.add_argument("--layers", type=int, default=named.LAYERS, help="how many are swept")
        parser.add_argument("--steps", type=int, default=named.STEPS, help="how often the dose is halved at each")
        parser.add_argument("--tokens", type=int, default=named.TOKENS, help="most tokens of an answer")
        parser.add_argument("--directions", type=int, default=named.RANDOM_DIRECTIONS, help="random ones, at least 20")
        parser.add_argument("--again", action="store_true", help="also those that were measured before")

    def handle(self, *args: Any, personas: list[str], user: str, **options: Any) -> None:
        owner = User.objects.filter(email__iexact=user).first() if user else User.objects.first_account()
        if owner is None:
            raise CommandError(f"There is no account {user}. Name one that exists, or leave --user out.")
        if not 1 <= options["window"] <= MOST_WINDOW:
            raise CommandError(f"A window has 1 to {MOST_WINDOW} tokens.")
        effort = named.Effort(**{name: options[name] for name in ("layers", "steps", "tokens", "directions")})
        reading = {name: options[name] for name in ("pooling", "window", "chat")}
        try:
            wanted = [found for name in personas if (found := persona_of(name))] or list(PERSONAS)
            model = served()
            for persona in wanted:
                vector = named.measured(
                    persona.slug,
                    owner=owner,
                    model=model,
                    folder=folder_of(model.id),
                    effort=effort,
                    reading=reading,
                    again=options["again"],
                    say=self.stdout.write,
                )
                found = vector.evaluation
                self.stdout.write(
                    f"{persona.key}: layer {found['layer']}, {found['strength']:g} times an ordinary token; "
                    f"{found['sentence']}\n"
                )
        except InferenceError as error:
            raise CommandError(error.message) from None
        finally:
            gateway.close()
