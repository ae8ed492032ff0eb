"""The admin pages keep the strict content security policy, though unfold's own templates do not."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import unfold
from django.conf import settings
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from steering.access.keys import create_key
from steering.access.models import Limit
from steering.accounts.models import User
from tests.steering.play import keep_vector
from tests.steering.test_presets import keep

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fake_inference")]

INLINE = re.compile(r"<script(?![^>]*\ssrc=)(?![^>]*application/json)|<style|\sstyle=|\son[a-z]+=|javascript:", re.I)
# unfold's files of which we keep our own version, as they were when we did. One that has changed: compare, then renew.
COPIED = {
    "unfold/layouts/skeleton.html": "66af9f0bb45f98ba4e16ba5e5a11f36d87b8e07430d19066d088b29548491c2e",
    "admin/actions.html": "b5332aace8e6919204a65b842e626bd8b1d5f8ed855dc290ab114b08526c5f15",
    "unfold/helpers/welcomemsg.html": "e8eab02522ba2319b937086bbcb6bf2a2bbe1489d236ad90ff23edbe070a7d6b",
    "unfold/helpers/empty_results.html": "5f4727a37a99da76e245048c8c7d7307ded9fe749533b33410e38657a9b1ef7e",
}
PLACES = ("changelist", "add")


@pytest.fixture
def browser(person: User, browser_of: Any) -> Client:
    create_key(owner=person, name="notebook", scopes=["generate"])
    Limit.objects.create(user=person, tokens_per_day=5)
    keep_vector(person)
    keep(person)
    return browser_of(User.objects.create_superuser("root@example.org"))


def addresses() -> list[str]:
    found = ["/admin/", "/admin/accounts/user/1/delete/", "/admin/accounts/user/1/history/"]
    for model in admin.site._registry:
        found += [reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{place}") for place in PLACES]
    return found


def test_no_page_of_the_admin_has_a_script_or_a_style_of_its_own(browser: Client) -> None:
    opened = 0
    for address in [*addresses(), *changes()]:
        response = browser.get(address)
        assert response.status_code in (200, 302, 403), address
        if response.status_code == 200:
            opened += 1
            text = response.content.decode()
            assert not (found := INLINE.search(text)), f"{address}: {text[found.start() - 40 : found.end() + 60]}"
            assert response["Content-Security-Policy"].startswith(settings.CONTENT_SECURITY_POLICY)
    assert opened > 15


def changes() -> list[str]:
    return [
        reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[row.pk])
        for model in admin.site._registry
        if (row := model._default_manager.first())
    ]


def test_the_policy_evaluates_nothing() -> None:
    assert "unsafe" not in settings.CONTENT_SECURITY_POLICY


def test_our_versions_of_unfolds_templates_follow_it() -> None:
    folder = Path(unfold.__file__).parent / "templates"
    assert {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in COPIED} == COPIED
