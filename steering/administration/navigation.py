"""The sidebar of the admin pages."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import reverse


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    return [
        {
            "items": [
                _item("Back to Steerboard", "playground:welcome", "arrow_back"),
                _item("Dashboard", "admin:index", "dashboard"),
            ]
        },
        {
            "title": "Operation",
            "separator": True,
            "items": [
                _item("Running work", "admin:administration_runningwork_changelist", "play_circle"),
                _item("Models and workers", "workers:list", "memory"),
                _item("Usage ledger", "admin:access_ledgerentry_changelist", "receipt_long"),
            ],
        },
        {
            "title": "People",
            "separator": True,
            "items": [
                _item("Accounts", "admin:accounts_user_changelist", "person"),
                _item("Invitations", "accounts:invitations", "mail"),
                _item("Groups", "admin:auth_group_changelist", "group"),
                _item("Limits", "admin:access_limit_changelist", "speed"),
                _item("API keys", "admin:access_apikey_changelist", "key"),
            ],
        },
        {
            "title": "Made here",
            "separator": True,
            "items": [
                _item("Presets", "admin:presets_preset_changelist", "bookmark"),
                _item("Behaviors", "admin:behaviors_behavior_changelist", "shield"),
                _item("Behavior alerts", "admin:behaviors_alert_changelist", "notification_important"),
                _item("Policies", "admin:policies_storedpolicy_changelist", "policy"),
                _item("Presets of policies", "admin:policies_policypreset_changelist", "bookmarks"),
                _item("Vectors", "admin:vectors_vector_changelist", "arrow_outward"),
                _item("Datasets", "admin:datasets_dataset_changelist", "database"),
                _item("Experiments", "admin:experiments_experiment_changelist", "experiment"),
            ],
        },
        {
            "title": "Audit",
            "separator": True,
            "items": [
                _item("Audit log", "admin:audit_auditentry_changelist", "history"),
                _item("Changes on these pages", "admin:admin_logentry_changelist", "edit_note"),
            ],
        },
    ]


def _item(title: str, view: str, icon: str) -> dict[str, Any]:
    return {"title": title, "icon": icon, "link": reverse(view)}


def account(request: HttpRequest) -> list[dict[str, Any]]:
    return [
        {"title": "Profile", "link": reverse("accounts:profile")},
        {"title": "Two-step sign-in", "link": reverse("mfa_index")},
    ]
