"""Keys, who they let in, and what is reserved, settled and refunded."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Group
from django.test import RequestFactory
from django.utils import timezone

from steering.access import admission, keys
from steering.access.admission import refund, reserve, settle
from steering.access.denied import Denied
from steering.access.keys import create_key, find_key, revoke_key, rotate_key
from steering.access.models import SCOPES, ApiKey, Counter, LedgerEntry, Limit
from steering.access.principal import Principal, principal_of, valid
from steering.accounts.models import User

pytestmark = pytest.mark.django_db


def asked(secret: str | None = None, *, user: Any = None, method: str = "get", **headers: str) -> Any:
    if secret is not None:
        headers["Authorization"] = f"Bearer {secret}"
    request = getattr(RequestFactory(enforce_csrf_checks=True), method)("/v1/models", headers=headers)
    request.user = user or AnonymousUser()
    return request


def key_of(person: User, **fields: Any) -> tuple[ApiKey, str]:
    return create_key(
        owner=person, name=fields.pop("name", "laptop"), scopes=fields.pop("scopes", ["generate"]), **fields
    )


def work(who: Principal, tokens: int = 10, **fields: Any) -> admission.Reservation:
    facts = {"work": "req", "kind": "generate", "model": "m", "source": "openai"} | fields
    return reserve(who, tokens=tokens, **facts)


def refused(who: Principal, tokens: int = 10) -> Denied:
    with pytest.raises(Denied) as caught:
        work(who, tokens)
    assert caught.value.status == 429
    return caught.value


# ---- keys ----


def test_a_key_lets_its_owner_in_and_only_its_digest_is_kept(person: User) -> None:
    key, secret = key_of(person)
    who = principal_of(asked(secret))
    assert (who.user, who.key) == (person, key)
    assert principal_of(asked(**{"X-API-Key": secret})).key == key
    stored = " ".join(str(value) for value in ApiKey.objects.filter(pk=key.pk).values_list()[0])
    assert secret.rpartition("-")[2] not in stored
    assert secret.startswith(f"sk-sb-{key.prefix}-")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s + "x",
        lambda s: s[:-1],
        lambda s: s.upper(),
        lambda s: "",
        lambda s: "sk-sb-é\x00-1",
        lambda s: "sk-1",
    ],
)
def test_another_secret_is_refused(person: User, spoil: Any) -> None:
    _, secret = key_of(person)
    with pytest.raises(Denied) as caught:
        principal_of(asked(spoil(secret)))
    assert (caught.value.status, caught.value.code) == (401, "invalid_key")
    assert caught.value.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_key_that_ended_says_how(person: User) -> None:
    key, secret = key_of(person)
    for change, code in (
        ({"expires_at": timezone.now() - timedelta(seconds=1)}, "expired_key"),
        ({"revoked_at": timezone.now()}, "revoked_key"),
    ):
        ApiKey.objects.filter(pk=key.pk).update(**change)
        with pytest.raises(Denied) as caught:
            principal_of(asked(secret))
        assert (caught.value.status, caught.value.code) == (401, code)
    ApiKey.objects.filter(pk=key.pk).update(expires_at=None, revoked_at=None)
    User.objects.filter(pk=person.pk).update(is_active=False)
    with pytest.raises(Denied, match="switched off"):
        principal_of(asked(secret))


def test_rotating_ends_the_old_secret_and_keeps_the_key(person: User) -> None:
    key, old = key_of(person)
    before = principal_of(asked(old))
    new = rotate_key(key)
    assert principal_of(asked(new)).key == key
    with pytest.raises(Denied):
        principal_of(asked(old))
    assert valid([before]) == [False]
    assert valid([principal_of(asked(new))]) == [True]


def test_a_revoked_key_gets_no_new_secret(person: User) -> None:
    key, _ = key_of(person)
    stale = ApiKey.objects.get(pk=key.pk)
    revoke_key(key)
    with pytest.raises(Denied, match="was revoked"):
        rotate_key(stale)


@pytest.mark.parametrize("known", [True, False])
def test_secrets_are_compared_in_the_same_time_whatever_they_are(
    person: User, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digests of one length, by hmac.compare_digest, also where no key has the prefix."""
    _, secret = key_of(person)
    compared: list[tuple[str, str]] = []
    monkeypatch.setattr(keys.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or False)
    assert keys.find_key(secret if known else "sk-sb-0000000000-1") is None
    ((kept, shown),) = compared
    assert len(kept) == len(shown) == 64


def test_many_are_looked_at_together_as_each_alone(person: User, django_assert_num_queries: Any) -> None:
    other = User.objects.create_user("other@example.com", password=None)
    (_, one), (ended, two), (rotated, three) = key_of(person), key_of(person, name="ended"), key_of(other)
    everyone = [*(principal_of(asked(secret)) for secret in (one, two, three)), Principal(person), Principal(other)]
    revoke_key(ended)
    rotate_key(rotated)
    User.objects.filter(pk=other.pk).update(is_active=False)
    with django_assert_num_queries(2):
        found = valid(everyone)
    assert found == [valid([who])[0] for who in everyone] == [True, False, False, True, False]
    assert valid([]) == []


def test_what_began_with_a_key_notices_that_it_ended(person: User) -> None:
    key, secret = key_of(person)
    who = principal_of(asked(secret))
    assert valid([who]) == [True]
    revoke_key(key)
    assert valid([who]) == [False]
    own = Principal(person)
    assert valid([own]) == [True]
    User.objects.filter(pk=person.pk).update(is_active=False)
    assert valid([own]) == [False]


def test_a_wrong_key_is_not_made_good_by_a_session(person: User) -> None:
    assert principal_of(asked(user=person)).key is None
    with pytest.raises(Denied, match="not known"):
        principal_of(asked("sk-sb-no-no", user=person))
    with pytest.raises(Denied, match="not one that holds a key"):
        principal_of(asked(user=person, Authorization="Basic bWlyYTp4"))
    with pytest.raises(Denied, match="different keys"):
        principal_of(asked("sk-sb-a-b", **{"X-API-Key": "sk-sb-c-d"}))
    with pytest.raises(Denied, match="needs an API key"):
        principal_of(asked())


def test_a_session_changes_nothing_without_the_pages_token(person: User) -> None:
    with pytest.raises(Denied) as caught:
        principal_of(asked(user=person, method="post"))
    assert (caught.value.status, caught.value.code) == (403, "csrf")
    _, secret = key_of(person)
    assert principal_of(asked(secret, user=person, method="post")).key


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_may_do_what_its_scopes_say(person: User, scope: str) -> None:
    person.is_staff = True
    key, _ = key_of(person, scopes=[scope])
    who = Principal(person, key)
    for other in SCOPES:
        if other == scope:
            who.require(other)
        else:
            with pytest.raises(Denied) as caught:
                who.require(other)
            assert (caught.value.status, caught.value.code) == (403, "missing_scope")


def test_admin_takes_a_member_of_staff_whatever_the_key_says(person: User) -> None:
    key, _ = key_of(person, scopes=["admin"])
    for who in (Principal(person), Principal(person, key)):
        with pytest.raises(Denied):
            who.require("admin")
    Principal(person).require("generate")


def test_a_key_is_held_to_its_models(person: User) -> None:
    key, _ = key_of(person, models=["Org/Small"])
    Principal(person, key).require_model("org/small")
    Principal(person, key).require_model("org/small::calm@1.0")
    with pytest.raises(Denied, match="Org/Small"):
        Principal(person, key).require_model("org/large")
    Principal(person).require_model("org/large")


def test_a_key_and_its_owner_are_found_as_django_reads_them(person: User) -> None:
    key, secret = key_of(person)
    found, read = find_key(secret), ApiKey.objects.select_related("owner").get(pk=key.pk)
    assert found is not None
    for ours, djangos in ((found, read), (found.owner, read.owner)):
        names = [field.attname for field in djangos._meta.concrete_fields]
        assert [getattr(ours, name) for name in names] == [getattr(djangos, name) for name in names]


def test_last_use_is_written_once_a_minute(person: User, django_assert_num_queries: Any) -> None:
    key, secret = key_of(person)
    principal_of(asked(secret))
    first = ApiKey.objects.get(pk=key.pk).last_used_at
    assert first is not None
    with django_assert_num_queries(1) as queries:
        principal_of(asked(secret))
    assert all(query["sql"].startswith("SELECT") for query in queries)
    ApiKey.objects.filter(pk=key.pk).update(last_used_at=first - timedelta(minutes=2))
    principal_of(asked(secret))
    assert ApiKey.objects.get(pk=key.pk).last_used_at >= first


def test_no_secret_is_logged(person: User, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    _, secret = key_of(person)
    principal_of(asked(secret))
    with pytest.raises(Denied) as caught:
        principal_of(asked(secret + "x"))
    everything = caplog.text + str(caught.value) + repr(caught.value)
    assert secret.rpartition("-")[2] not in everything


# ---- reserving ----


def test_what_was_reserved_is_settled_to_what_was_used(person: User) -> None:
    key, _ = key_of(person)
    who = Principal(person, key)
    first, second = work(who, 100), work(who, 50)
    settle(first.id, prompt_tokens=7, completion_tokens=8)
    refund(second.id)
    settle(first.id, prompt_tokens=70, completion_tokens=80)  # the first ending counts
    refund(first.id)
    settle(second.id, prompt_tokens=1, completion_tokens=1)
    assert set(Counter.objects.values_list("subject", "requests", "tokens", "running")) == {
        (f"user:{person.pk}", 2, 15, 0),
        (f"key:{key.pk}", 2, 15, 0),
    }
    rows = {row.pk: (row.state, row.used_tokens) for row in LedgerEntry.objects.all()}
    assert rows == {first.id: ("settled", 15), second.id: ("refunded", 0)}
    assert not admission.running().exists()


def test_without_limits_nothing_is_refused_and_no_header_promises_any(person: User) -> None:
    assert [work(Principal(person), 10**9).headers for _ in range(3)] == [{}, {}, {}]


def test_the_headers_speak_of_the_strictest_limit(person: User) -> None:
    Limit.objects.create(user=person, requests_per_minute=10, tokens_per_day=1000)
    key, _ = key_of(person, requests_per_minute=3)
    headers = work(Principal(person, key), 400).headers
    assert headers["x-ratelimit-limit-requests"] == "3"
    assert headers["x-ratelimit-remaining-requests"] == "2"
    assert headers["x-ratelimit-limit-tokens"] == "1000"
    assert headers["x-ratelimit-remaining-tokens"] == "600"
    assert headers["x-ratelimit-reset-requests"].endswith("s")


def test_each_limit_refuses_by_its_own_name_and_says_when_to_come_back(person: User) -> None:
    limit = Limit.objects.create(user=person, tokens_per_day=100)
    work(Principal(person), 80)
    denied = refused(Principal(person), 30)
    assert denied.code == "quota_spent" and "20 of 100 left" in denied.message
    assert denied.retry_after and 0 < denied.retry_after <= 86400
    assert int(denied.headers["Retry-After"]) >= denied.retry_after
    assert denied.headers["x-ratelimit-remaining-tokens"] == "20"
    assert refused(Principal(person), 101).retry_after is None  # no waiting helps
    Limit.objects.filter(pk=limit.pk).update(tokens_per_day=None, concurrent_runs=1)
    assert refused(Principal(person)).code == "too_many_at_once"
    Limit.objects.filter(pk=limit.pk).update(concurrent_runs=None, requests_per_minute=0)
    assert refused(Principal(person)).retry_after is None
    assert LedgerEntry.objects.count() == 1


def test_a_place_is_free_again_when_the_work_ends(person: User) -> None:
    Limit.objects.create(user=person, concurrent_runs=1)
    for end in (lambda id: settle(id, prompt_tokens=1, completion_tokens=1), refund):
        end(work(Principal(person)).id)
    work(Principal(person))
    refused(Principal(person))


def test_a_group_shares_its_limit_and_a_stranger_does_not(person: User, stranger: User) -> None:
    third = User.objects.create_user("third@example.org")
    group = Group.objects.create(name="Physics")
    group.user_set.add(person, third)
    Limit.objects.create(group=group, tokens_per_day=100)
    work(Principal(person), 60)
    denied = refused(Principal(third), 60)
    assert "Physics" in denied.message
    work(Principal(stranger), 60)


def test_an_own_limit_stands_in_for_the_default(person: User, stranger: User, settings: Any) -> None:
    settings.DEFAULT_LIMITS = {"requests_per_minute": 1, "tokens_per_day": None, "concurrent_runs": None}
    Limit.objects.create(user=person)
    for _ in range(3):
        work(Principal(person))
    work(Principal(stranger))
    assert refused(Principal(stranger)).code == "rate_limited"


def test_a_new_minute_and_a_new_day_begin_at_nothing(person: User) -> None:
    Limit.objects.create(user=person, requests_per_minute=1, tokens_per_day=100)
    old = work(Principal(person), 90)
    assert refused(Principal(person)).code == "rate_limited"
    Counter.objects.update(minute=1)
    assert refused(Principal(person), 20).code == "quota_spent"
    Counter.objects.update(minute=1, day=1)
    yesterday = timezone.now() - timedelta(days=1)
    LedgerEntry.objects.filter(pk=old.id).update(created_at=yesterday)
    work(Principal(person), 40)
    settle(old.id, prompt_tokens=5, completion_tokens=5)  # of yesterday: today's tokens stay
    counter = Counter.objects.get()
    assert (counter.requests, counter.tokens, counter.running) == (1, 40, 1)
