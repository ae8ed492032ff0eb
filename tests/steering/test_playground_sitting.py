"""Whether a socket's session still stands: what the short way says against what Django says."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from steering.accounts.models import User
from steering.playground.sitting import Sitting

pytestmark = pytest.mark.django_db


@pytest.fixture
def browser(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


@pytest.fixture
def sitting(browser: Client, person: User) -> Sitting:
    return Sitting(browser.cookies[settings.SESSION_COOKIE_NAME].value, person)


def test_once_approved_one_query_says_so(sitting: Sitting, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    assert sitting.stands()
    with django_assert_num_queries(1):
        assert sitting.stands()


def _sign_out(browser: Client, person: User) -> None:
    browser.logout()


def _change_password(browser: Client, person: User) -> None:
    person.set_password("another long password")
    person.save()


def _deactivate(browser: Client, person: User) -> None:
    User.objects.filter(pk=person.pk).update(is_active=False)


def _run_out(browser: Client, person: User) -> None:
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))


def _delete(browser: Client, person: User) -> None:
    person.delete()


@pytest.mark.parametrize("end", [_sign_out, _change_password, _deactivate, _run_out, _delete])
@pytest.mark.parametrize("approved", [True, False])
def test_it_falls_with_whatever_ends_a_session(
    sitting: Sitting, browser: Client, person: User, end: Any, approved: bool
) -> None:
    if approved:
        assert sitting.stands()
    end(browser, person)
    assert not sitting.stands()
    assert not sitting.stands()


def test_a_session_that_changes_is_asked_about_again(sitting: Sitting, browser: Client) -> None:
    assert sitting.stands()
    session = browser.session
    session["anything"] = 1
    session.save()
    assert sitting.stands()


def test_a_session_of_somebody_else_does_not_stand(sitting: Sitting, browser: Client) -> None:
    other = User.objects.create_user("other@example.org")
    assert not Sitting(browser.cookies[settings.SESSION_COOKIE_NAME].value, other).stands()


def test_without_a_session_nobody_sits(person: User) -> None:
    assert not Sitting(None, person).stands()
