"""`manage.py presets`: the presets with fixed names, such as truthfulness, for the model that is served.

For each: build its vector from the pairs that come with Steerboard, find layer and dose on tuning prompts, measure that
point once on held-out prompts beside base, the same wish as a system prompt and random directions, and register the
preset with what was found, good or bad. The same command goes on with what one that was killed has left.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management import BaseCommand, CommandError

from inference.errors import InferenceError
from inference.types import ModelInfo
from steering import gateway
from steering.accounts.models import User
from steering.experiments import named
from steering.presets.starters import NAMED
from steering.vectors.starters import folder_of


class Command(BaseCommand):
    help = "Make the presets with fixed names for the served model, and say what was measured of each."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMED)}; all by default")
        parser.add_argument("--user", default="", help="e-mail of the account it is for; the first one by default")
        parser.add_argument("--layers", type=int, default=named.LAYERS, help="how many around the recommended one")
        parser.add_argument("--steps", type=int, default=named.STEPS, help="how often the dose is halved at each")
        parser.add_argument("--tokens", type=int, default=named.TOKENS, help="most tokens of an answer")
        parser.add_argument("--directions", type=int, default=named.RANDOM_DIRECTIONS, help="random ones, at least 20")
        parser.add_argument("--again", action="store_true", help="also those that were measured before")
        parser.add_argument(
            "--table", action="store_true", help="measure nothing: print what was measured, as Markdown"
        )
        parser.add_argument("--ship", action="store_true", help="write them where those lie that come with Steerboard")

    def handle(self, *args: Any, names: list[str], user: str, again: bool, ship: bool, **options: Any) -> None:
        owner = User.objects.filter(email__iexact=user).first() if user else User.objects.first_account()
        if owner is None:
            raise CommandError(f"There is no account {user}. Name one that exists, or leave --user out.")
        effort = named.Effort(**{name: options[name] for name in ("layers", "steps", "tokens", "directions")})
        failed = []
        try:
            wanted = named.check_names(names)
            model = served()
            if options["table"]:
                self.stdout.write(named.table(wanted, model))
                return
            folder = named.ship_folder(model) if ship else folder_of(model.id)
            for name in wanted:
                try:
                    named.make(
                        name, owner=owner, model=model, folder=folder, effort=effort, again=again, say=self.stdout.write
                    )
                except InferenceError as error:
                    failed.append(name)
                    self.stderr.write(f"{name}: {error.message} ({error.code})")
        except InferenceError as error:
            raise CommandError(error.message) from None
        finally:
            gateway.close()
        if failed:
            raise CommandError(f"Not made: {', '.join(failed)}. The reasons are above; the same command goes on.")


def served() -> ModelInfo:
    """The model, as soon as it is loaded. Raises CommandError."""
    gateway.inference()
    while (model := gateway.model_info(timeout=30)).state == "loading":
        time.sleep(0.3)
    if model.state == "failed":
        raise CommandError(model.problem)
    return model
