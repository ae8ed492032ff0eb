"""Start this server with the options of Neuronpedia's, for its client: `manage.py neuronpedia --list_models`."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, call_command

from inference.errors import InferenceError
from inference.saes.published import sets
from steering.access.keys import keep_chosen
from steering.accounts.models import User
from webapp.neuronpedia import LISTS, NUMBERS, Options, check, environment_of, with_environment

KEY_NAME = "Neuronpedia's secret"
HELP = {
    "model_id": "the model: Neuronpedia's name, an id of Hugging Face, a folder, or default",
    "override_model_id": "serve this model, with the SAEs of --model_id",
    "custom_hf_model_id": "serve these weights of Hugging Face, with the SAEs of --model_id",
    "sae_sets": "sets of SAEs, such as res-jb",
    "include_sae": "only sources in which this regular expression finds something; may be given again",
    "exclude_sae": "no sources in which it does; may be given again",
    "max_loaded_saes": "how many SAEs may be in memory; the one used longest ago goes first",
    "model_dtype": "auto, float32, bfloat16 or float64",
    "sae_dtype": "likewise, of SAEs",
    "token_limit": "tokens that one prompt may have",
    "device": "cpu, cuda or cuda:1",
    "host": "the address to listen at",
    "port": "the port to listen at",
    "secret": "what programs send as X-SECRET-KEY; kept as a digest, as a key of the first account",
}


class Command(BaseCommand):
    help = "Serve Neuronpedia's client with the options of its own server."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        for name, text in HELP.items():
            fields: dict[str, Any] = {"help": text, "default": argparse.SUPPRESS}
            if name in LISTS:
                fields |= {"nargs": "+", "action": "extend"}
            elif name in NUMBERS:
                fields |= {"type": int}
            parser.add_argument(*_spelt(name), dest=name, **fields)
        parser.add_argument(*_spelt("list_models"), dest="list_models", action="store_true",
                            help="print models and their sets of SAEs, then end")  # fmt: skip
        parser.add_argument("--no_saes", "--no-saes", dest="no_saes", action="store_true", help="serve without SAEs")

    def handle(self, *args: Any, list_models: bool, no_saes: bool, **options: Any) -> None:
        if list_models or os.environ.get("LIST_MODELS", "").lower() == "true":
            self.list_models()
            return
        try:
            asked = self.asked(options)
            environment = environment_of(asked, os.environ, settings.DATA_DIR)
            if asked.secret:
                self.keep_secret(asked.secret)
        except InferenceError as refusal:
            sys.exit(refusal.message)
        if no_saes:
            environment["STEERBOARD_SAES_EXCLUDE"] = "*"
        for name, value in environment.items():
            self.stdout.write(f"{name}={value if len(value) < 200 else value[:200] + '…'}")
        self.stdout.flush()
        start(asked, environment)

    def asked(self, options: dict[str, Any]) -> Options:
        """Raises InvalidRequest. What the environment says in place of an option is told."""
        known: dict[str, Any] = {name: tuple(v) if name in LISTS else v for name, v in options.items() if name in HELP}
        told = Options(**known)
        asked = with_environment(told, os.environ)
        for name in known:
            if getattr(asked, name) != getattr(told, name):
                self.stdout.write(f"--{name} gives way to {name.upper()} of the environment.")
        check(asked, os.environ)
        return asked

    def list_models(self) -> None:
        for model, counts in sorted(sets().items()):
            self.stdout.write(f"{model}:")
            for name, count in counts.items():
                self.stdout.write(f"  {name} ({count} SAE{'s' if count > 1 else ''})")

    def keep_secret(self, secret: str) -> None:
        call_command("migrate", interactive=False, verbosity=0)
        owner = User.objects.first_account()
        key = keep_chosen(owner=owner, name=KEY_NAME, secret=secret, scopes=["generate"])
        self.stdout.write(
            f"The secret opens what the key “{key.name}” of {owner.email} may do. Its page is under /keys/."
        )


def _spelt(name: str) -> list[str]:
    return list(dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")))


def start(asked: Options, environment: dict[str, str]) -> None:
    """`serve` in this process's place: settings are read once, when Django starts."""
    words = [sys.executable, sys.argv[0], "serve", "--host", asked.host, "--port", str(asked.port)]
    os.execve(sys.executable, words, {**os.environ, **environment})  # noqa: S606
