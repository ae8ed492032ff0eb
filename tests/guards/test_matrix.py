"""Every route for every caller, from the URL configuration itself: a new route without a rule fails here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from django.core.cache import cache
from django.db import transaction
from django.test import Client
from django.urls import reverse

from steering.playground.routing import websocket_urlpatterns
from tests.fake_inference import FakeInference
from tests.guards.matrix import CALLERS, METHODS, REFUSED, RULES, SOCKETS, Rule, rule_of
from tests.guards.world import OWNED, Route, World, owned_models, routes

pytestmark = pytest.mark.django_db

ALL = {route.name + " " + route.pattern: route for route in routes()}
GROUPS: dict[str, list[Route]] = {}
# Their work runs in threads that see only what was committed.
PROGRAMS = ("openai", "mechanex", "neuronpedia", "older", "workshop")
for _route in ALL.values():
    _space = _route.name.partition(":")[0]
    GROUPS.setdefault(_space if _space in PROGRAMS else _route.pattern.partition("/")[0] or "root", []).append(_route)
COMMITTED = [name for name in PROGRAMS if name in GROUPS]
# Found by the sender and the key they sent, or by the key it is of, never by an id in an address.
NO_ADDRESS = {"KeptAnswer", "ModelChoice"}
SIGN_IN_PAGES = ("/accounts/signin/", "/admin/login/")


@pytest.fixture
def world(fake_inference: FakeInference, monkeypatch: pytest.MonkeyPatch) -> World:
    """Work is not begun: it would happen in threads that do not see what a test has not committed."""

    async def nothing(*args: Any, **kwargs: Any) -> None: ...

    for module in ("runner", "library"):
        monkeypatch.setattr(f"steering.playground.{module}.run_stop", nothing)
    fake_inference.payload = {"merged": []}  # what a check of a dataset's tokens finds
    return World(fake_inference)


def address(route: Route, rule: Rule, world: World) -> str:
    values = {name: rule.values[name](world) for name in route.names if name in rule.values}
    if route.name.endswith("None"):  # these have no name by which they could be found
        path = "/" + route.pattern.replace("^", "").replace("(?P<url>.*)$", "nothing/")
        return path.replace("<path:object_id>", "1")
    return reverse(route.name, kwargs=values)


def ask(client: Client, method: str, path: str, rule: Rule) -> Any:
    body = rule.methods.get(method)
    send = getattr(client, method.lower())
    if method == "GET":
        return send(path, headers={"accept": "application/json"} if rule.json else {})
    if rule.json:
        return send(path, json.dumps(body or {}), content_type="application/json")
    return send(path, body or {}) if method == "POST" else send(path)


def test_every_route_has_a_rule_and_every_rule_a_route() -> None:
    names = {route.name for route in ALL.values()}
    assert {name for name in names if rule_of(name) is None} == set()
    assert set(RULES) - names == set()


def test_every_websocket_has_its_tests() -> None:
    assert {str(entry.pattern) for entry in websocket_urlpatterns} == SOCKETS


def test_everything_that_belongs_to_somebody_is_in_the_world() -> None:
    assert owned_models() - NO_ADDRESS == {model.__name__ for model in OWNED}


@contextmanager
def undone() -> Iterator[None]:
    """What happens inside never was."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def each_route(group: str, world: World) -> Iterator[tuple[Route, Rule, str]]:
    """The routes of a group with their rules and addresses."""
    for route in GROUPS[group]:
        rule = rule_of(route.name)
        assert rule is not None
        cache.clear()  # how often somebody asked
        yield route, rule, address(route, rule, world)


def answers(route: Route, rule: Rule, path: str, world: World, undo: Any) -> Iterator[str]:
    """Asks a route as each caller, by each method; yields what was not answered as the rule says."""
    for who in CALLERS:
        for method in METHODS:
            with undo():
                response = ask(world.caller(who), method, path, rule)
            expected = getattr(rule, who) if method in rule.methods else REFUSED
            said = f"{method} {path} ({route.name}) by {who}: {response.status_code}"
            if response.status_code not in expected:
                yield f"{said}, expected {sorted(expected)}"
            to = response.get("Location", "")
            if who in ("anonymous", "key") and to and not rule.open and not to.startswith(SIGN_IN_PAGES):
                yield f"{said}, which leads to {to}"
            if who == "stranger" and not rule.open and response.status_code == 200:
                yield from (f"{said} names the owner's {name}" for name in owners_in(response, world))


def owners_in(response: Any, world: World) -> list[str]:
    text = b"".join(response.streaming_content) if response.streaming else response.content
    return [name for name, thing in world.owned.items() if str(thing.pk).encode() in text]


@pytest.mark.parametrize("group", [group for group in GROUPS if group not in COMMITTED])
def test_a_route_answers_each_caller_as_its_rule_says(group: str, world: World) -> None:
    wrong: list[str] = []
    for route, rule, path in each_route(group, world):
        with undone():
            wrong += answers(route, rule, path, world, undone)
            others_kept(route, rule, path, world)
    assert not wrong, "\n".join(wrong)


def others_kept(route: Route, rule: Rule, path: str, world: World) -> None:
    """Once more as everybody but the owner, without undoing: nothing of the owner's may have changed."""
    kept = world.kept()
    for who in CALLERS[:-1]:
        for method in rule.methods:
            ask(world.caller(who), method, path, rule)
    assert world.kept() == kept, f"{route.name}: somebody else changed what is the owner's"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("group", COMMITTED)
def test_routes_for_programs_answer_each_caller_as_their_rules_say(group: str, world: World) -> None:
    wrong: list[str] = []
    for route, rule, path in each_route(group, world):
        wrong += answers(route, rule, path, world, nullcontext)
    assert not wrong, "\n".join(wrong)


KINDS = ("text/plain", "application/json", "application/x-www-form-urlencoded")


def forged(group: str, world: World, undo: Any) -> Iterator[str]:
    """What another site's page could have done with the owner's cookie, were browsers to send it along."""
    for route, rule, path in each_route(group, world):
        for method in METHODS[1:]:
            body = json.dumps(rule.methods.get(method) or {})
            for kind in KINDS:
                with undo():
                    response = world.caller("owner", csrf=True).generic(method, path, body, content_type=kind)
                if not rule.csrf_exempt and response.status_code not in (403, 404, 405):
                    yield f"{method} {path} ({route.name}) as {kind}: {response.status_code}"


@pytest.mark.parametrize("group", [group for group in GROUPS if group not in COMMITTED])
def test_a_session_changes_nothing_without_the_pages_token(group: str, world: World) -> None:
    wrong = list(forged(group, world, undone))
    assert not wrong, "\n".join(wrong)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("group", COMMITTED)
def test_a_session_uses_routes_for_programs_only_with_the_pages_token(group: str, world: World) -> None:
    wrong = list(forged(group, world, nullcontext))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/api/v1/datasets", "/api/v1/runs"])
@pytest.mark.parametrize("who", ["anonymous", "key", "owner"])
def test_the_apis_set_no_cookies(world: World, who: str, path: str) -> None:
    for method in METHODS:
        client = world.caller(who)
        response = client.generic(method, path, b"{}", content_type="application/json")
        assert not response.cookies, f"{method} {path} by {who} sets {list(response.cookies)}"
