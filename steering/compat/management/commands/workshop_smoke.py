"""`manage.py workshop_smoke`: write one example of each persona, base and steered, and say whether steering showed.

A look before the talk: it ends with an error where a persona has no vector, or changes nothing.
"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError

from inference.errors import InferenceError
from steering import gateway
from steering.access.principal import Principal
from steering.accounts.models import User
from steering.compat.workshop.asking import LANES, Asked, sampling_of, texts
from steering.compat.workshop.personas import PERSONAS, ready
from steering.experiments.management.commands.presets import served


class Command(BaseCommand):
    help = "Try the workshop's personas on the served model."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--tokens", type=int, default=40, help="of each text")
        parser.add_argument("--seed", type=int, default=7)

    def handle(self, *args: Any, tokens: int, seed: int, **options: Any) -> None:
        owner = User.objects.first_account()
        problems = []
        try:
            model = served()
            for persona in PERSONAS:
                try:
                    found = ready(persona, model)
                except InferenceError as error:
                    problems.append(error.message)
                    continue
                sampling = sampling_of(tokens, 0.7, seed)
                asked = Asked(persona.prompts[0], model, found, settings.WORKSHOP_STRENGTH, None, sampling)
                written = gateway.submit(texts(Principal(owner), asked, LANES)).result(120)
                self.stdout.write(f"\n{persona.name}, layer {found.layer}, {found.dose:g}×\n  {asked.prompt} …")
                for lane in LANES:
                    self.stdout.write(f"  {lane:8}{written[lane].strip()!r}")
                if written["base"] == written["steered"]:
                    problems.append(
                        f"{persona.name} changes nothing: build it again with `manage.py workshop_vectors`."
                    )
        except InferenceError as error:
            problems.append(error.message)
        finally:
            gateway.close()
        if problems:
            raise CommandError("\n".join(problems))
        self.stdout.write("\nAll three personas write, and steering shows.")
