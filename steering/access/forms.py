from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.utils import timezone

from steering.access.models import SCOPES, ApiKey
from steering.accounts.models import User

MOST_KEYS = 50
SCOPE_SAYS = {
    "generate": "Chat and completions, steered or not, and runs",
    "vectors": "Read and change your vectors and presets",
    "datasets": "Read and change your datasets",
    "jobs": "Start, watch and cancel jobs, such as builds",
    "admin": "What only administrators may do",
}
LIFETIMES = [("7", "7 days"), ("30", "30 days"), ("90", "90 days"), ("365", "1 year"), ("", "until it is revoked")]


class KeyForm(forms.Form):
    """A new key. `models` are the ids of the models that are served now."""

    name = forms.CharField(
        max_length=80,
        error_messages={"required": "Give the key a name, such as the program that will use it."},
    )
    scopes = forms.MultipleChoiceField(error_messages={"required": "Choose at least one thing that the key may do."})
    lifetime = forms.ChoiceField(choices=LIFETIMES, required=False)
    models = forms.MultipleChoiceField(required=False)
    requests_per_minute = forms.IntegerField(min_value=1, max_value=10**6, required=False)
    tokens_per_day = forms.IntegerField(min_value=1, max_value=10**12, required=False)
    concurrent_runs = forms.IntegerField(min_value=1, max_value=10**4, required=False)

    DEFAULTS = {"scopes": ["generate"], "lifetime": "90"}

    def __init__(self, *args: Any, user: User, models: list[str], **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.user = user
        mine = [(scope, SCOPE_SAYS[scope]) for scope in SCOPES if scope != "admin" or user.is_staff]
        self.fields["scopes"].choices = mine  # type: ignore[attr-defined]
        self.fields["models"].choices = [(id, id) for id in models]  # type: ignore[attr-defined]

    def clean_name(self) -> str:
        name = " ".join(self.cleaned_data["name"].split())
        live = ApiKey.objects.owned_by(self.user).filter(revoked_at=None)
        if live.filter(name=name).exists():
            raise forms.ValidationError(
                f"You have a key called “{name}”. Choose another name, or rotate that key to get a new secret for it."
            )
        if live.count() >= MOST_KEYS:
            raise forms.ValidationError(f"You have {MOST_KEYS} keys, which is the most. Revoke one that is not used.")
        return name

    def facts(self) -> dict[str, Any]:
        """What `create_key` is to be told besides the owner."""
        return {
            "name": self.cleaned_data["name"],
            "scopes": self.cleaned_data["scopes"],
            "models": self.cleaned_data["models"],
            "expires_at": _expiry(self.cleaned_data["lifetime"]),
            **{
                limit: self.cleaned_data[limit]
                for limit in ("requests_per_minute", "tokens_per_day", "concurrent_runs")
            },
        }


def _expiry(lifetime: str) -> datetime | None:
    return timezone.now() + timedelta(days=int(lifetime)) if lifetime else None
