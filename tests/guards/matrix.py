"""What each route answers to each caller. A route that is not in here fails `test_matrix.py`.

To add a route, add a line to RULES. `own("dataset")` is a page about one thing of one person: the stranger and staff
are told that there is nothing. A method that a rule does not name must be refused to everybody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.guards.world import World
from tests.steering.features import SOURCE

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
CALLERS = ("anonymous", "key", "stranger", "staff", "owner")  # the owner last: what they do may take the thing away
Statuses = frozenset[int]


def any_of(*statuses: int) -> Statuses:
    return frozenset(statuses)


DONE = any_of(200, 201, 202, 204, 302)
TAKEN = DONE | {400, 403, 409, 410, 422, 429}  # let in, and perhaps told what is wrong with an empty form
GONE = any_of(404)
SIGN_IN = any_of(302)  # to the sign-in page
NO_KEY = any_of(401)
NO_SCOPE = any_of(403)
MODEL = "SmolLM2-135M-Instruct"
REFUSED = any_of(302, 401, 403, 404, 405, 429)  # for methods that a route does not know


@dataclass(frozen=True)
class Rule:
    """Statuses by caller for the methods named; `methods` maps each to what it sends as form or JSON."""

    methods: dict[str, Any]
    anonymous: Statuses
    key: Statuses
    stranger: Statuses
    staff: Statuses
    owner: Statuses
    values: dict[str, Callable[[World], Any]] = field(default_factory=dict)  # of the address
    json: bool = False
    open: bool = False  # asks nobody who they are, so redirects may lead anywhere
    csrf_exempt: str = ""  # why a form without its token is taken


def _methods(said: tuple[str, ...], forms: dict[str, Any]) -> dict[str, Any]:
    return dict.fromkeys(said, None) | forms


# ---- pages: for people with a session; a key opens none of them ----


def page(*methods: str, owner: Statuses = TAKEN, **values: Any) -> Rule:
    """For everyone who is signed in, about their own things."""
    return Rule(_methods(methods or ("GET",), {}), SIGN_IN, SIGN_IN, owner, owner, owner, _constant(values))


def own(thing: str, *methods: str, owner: Statuses = TAKEN, forms: dict[str, Any] | None = None, **values: Any) -> Rule:
    """About one thing of one person, named in the address by its id."""
    named = {"pk": lambda world: world.owned[thing].pk, **_constant(values)}
    said = _methods(methods or (() if forms else ("GET",)), forms or {})
    return Rule(said, SIGN_IN, SIGN_IN, GONE, GONE, owner, named)


def for_staff(*methods: str, staff: Statuses = TAKEN, outside: Statuses = GONE, **values: Any) -> Rule:
    named = {name: value if callable(value) else _always(value) for name, value in values.items()}
    return Rule(_methods(methods or ("GET",), {}), SIGN_IN, SIGN_IN, outside, staff, outside, named)


def for_all(*methods: str, statuses: Statuses = TAKEN, csrf_exempt: str = "", **values: Any) -> Rule:
    """Open without an account."""
    said = _methods(methods or ("GET",), {})
    five = (statuses,) * 5
    return Rule(said, *five, values=_constant(values), open=True, csrf_exempt=csrf_exempt)


# ---- APIs: for keys and sessions; no session, no key: 401; a key that lacks the scope: 403 ----


def api(*methods: str, forms: dict[str, Any] | None = None, owner: Statuses = TAKEN, **values: Any) -> Rule:
    """For everyone with a key, about their own things."""
    said = _methods(methods or (() if forms else ("GET",)), forms or {})
    return Rule(said, NO_KEY, NO_SCOPE, owner, owner, owner, _constant(values), json=True)


def api_own(thing: str, *methods: str, forms: dict[str, Any] | None = None, by: str = "id", **values: Any) -> Rule:
    named = {by: lambda world: world.owned[thing].pk, **_constant(values)}
    said = _methods(methods or (() if forms else ("GET",)), forms or {})
    return Rule(said, NO_KEY, NO_SCOPE, GONE, GONE, TAKEN, named, json=True)


def api_for_any_key(**values: Any) -> Rule:
    """What every key may know, whatever its scopes."""
    five = (NO_KEY, *(any_of(200),) * 4)
    return Rule({"GET": None}, *five, values=_constant(values), json=True)


def api_for_staff(*methods: str, **values: Any) -> Rule:
    """Others are told that there is nothing."""
    return Rule(_methods(methods, {}), NO_KEY, GONE, GONE, TAKEN, GONE, _constant(values), json=True)


NO_SESSION = "only keys and tokens count there, which no other site can make a browser send"


def program(*methods: str, key: Statuses = NO_SCOPE, **values: Any) -> Rule:
    """What another system's client asks for, with a key or an access token; a browser's session counts for nothing."""
    said = _methods(methods or ("POST",), {})
    by = {"anonymous": NO_KEY, "key": key, "stranger": NO_KEY, "staff": NO_KEY, "owner": NO_KEY}
    return Rule(said, **by, values=_constant(values), json=True, csrf_exempt=NO_SESSION)


def open_program(*methods: str, statuses: Statuses = TAKEN) -> Rule:
    """The same, where nobody is asked who they are."""
    return Rule(_methods(methods or ("POST",), {}), *(statuses,) * 5, json=True, open=True, csrf_exempt=NO_SESSION)


def _constant(values: dict[str, Any]) -> dict[str, Callable[[World], Any]]:
    return {name: value if callable(value) else _always(value) for name, value in values.items()}


def _always(value: Any) -> Callable[[World], Any]:
    return lambda world: value


def _training(world: World) -> Any:
    return world.owned["training"].pk


FORM = ("GET", "POST", "PUT")  # class-based forms take PUT for POST
ACCOUNT_PAGE = page(*FORM)
RULES: dict[str, Rule] = {
    # the frame
    "csp-report": for_all("POST", statuses=any_of(400), csrf_exempt="browsers send reports without a form"),
    "None": for_all("GET", statuses=any_of(302)),  # favicon.ico
    "livez": for_all(),
    "readyz": for_all(statuses=any_of(200, 503)),
    "status": page(owner=any_of(200)),
    "metrics": Rule({"GET": None}, NO_KEY, NO_KEY, GONE, any_of(200), GONE),
    # accounts: allauth's pages, then ours
    "account_login": for_all(*FORM),
    "account_logout": page("POST", owner=any_of(302)),
    "account_signup": for_all(*FORM),
    "account_inactive": for_all(),
    "account_reauthenticate": ACCOUNT_PAGE,
    "account_email": ACCOUNT_PAGE,
    "account_email_verification_sent": for_all(),
    "account_confirm_email": for_all("GET", "POST", statuses=any_of(200, 404), key="wrong"),
    "account_change_password": ACCOUNT_PAGE,
    "account_set_password": ACCOUNT_PAGE,
    "account_reset_password": for_all(*FORM),
    "account_reset_password_done": for_all(),
    "account_reset_password_from_key_done": for_all(),
    "account_reset_password_from_key": for_all(*METHODS, uidb36="1", key="wrong-key"),
    "usersessions_list": ACCOUNT_PAGE,
    "mfa_index": page(),
    "mfa_authenticate": for_all(*FORM),
    "mfa_reauthenticate": ACCOUNT_PAGE,
    "mfa_activate_totp": ACCOUNT_PAGE,
    "mfa_deactivate_totp": page(*FORM, owner=TAKEN | {404}),  # 404: there is none to switch off
    "mfa_view_recovery_codes": page(owner=TAKEN | {404}),
    "mfa_generate_recovery_codes": page(*FORM, owner=TAKEN | {404}),
    "mfa_download_recovery_codes": page(owner=TAKEN | {404}),
    "accounts:link": for_all(token="x" * 43, statuses=any_of(410)),
    "accounts:profile": page("GET", "POST"),
    "accounts:end_session": Rule(
        {"POST": None}, SIGN_IN, SIGN_IN, GONE, GONE, DONE, {"pk": lambda world: world.session_of_owner().pk}
    ),
    "accounts:end_program": Rule(
        {"POST": None}, SIGN_IN, SIGN_IN, GONE, GONE, DONE, {"pk": lambda world: world.login_of_owner().pk}
    ),
    "accounts:invitations": for_staff("GET", "POST", outside=NO_SCOPE),
    "accounts:take_back": for_staff("POST", outside=NO_SCOPE, pk=lambda world: world.invitation.pk),
    "accounts:invitation": for_all(token="x" * 43, statuses=any_of(410)),
    "accounts:delete": page("GET", "POST"),
    "admin_signin": for_all(statuses=any_of(302, 403)),
    # keys and presets
    "access:keys": page(),
    "access:new": page("GET", "POST"),
    "access:key": own("key"),
    "access:rotate": own("key", "GET", "POST"),
    "access:revoke": own("key", "GET", "POST"),
    "presets:list": page(),
    "presets:library": page(),
    "presets:save": page("POST"),
    "presets:detail": own("preset"),
    "presets:edit": own("preset", "GET", "POST"),
    "presets:version": own("preset", "GET", "POST"),
    "presets:share": own("preset", "POST"),
    "presets:delete": own("preset", "GET", "POST"),
    # datasets
    "datasets:list": page(),
    "datasets:new": page("GET", "POST"),
    "datasets:import": page("GET", "POST"),
    "datasets:preview": own("draft", "GET", "POST"),
    "datasets:describe": page("GET", "POST"),
    "datasets:describing": own("asking"),
    "datasets:review": own("written", "GET", "POST"),
    "datasets:detail": own("dataset"),
    "datasets:edit": own("dataset", "GET", "POST"),
    "datasets:duplicate": own("dataset", "POST"),
    "datasets:lint": own("dataset"),
    "datasets:export": own("dataset", ending="csv"),
    "datasets:delete": own("dataset", "GET", "POST"),
    # jobs
    "jobs:list": page(),
    "jobs:detail": own("job"),
    "jobs:status": own("job"),
    "jobs:cancel": own("job", "POST"),
    "jobs:finish": own("job", "POST"),
    # models and workers
    "workers:list": for_staff(),
    "workers:table": for_staff(),
    "workers:choose": page("POST"),
    "workers:control": for_staff("POST", worker_id="fake", command="resume"),
    # playground
    "playground:welcome": page(),
    "playground:home": page(),
    "playground:runs": page(),
    "playground:run": own("run"),
    "playground:rename": own("run", "POST"),
    "playground:stop": own("run", "POST"),
    "playground:delete": own("run", "POST"),
    # vectors
    "vectors:list": page(),
    "vectors:library": page(),
    "vectors:build": page("GET", "POST"),
    "vectors:building": own("job"),
    "vectors:compare": page("GET", "POST"),
    "vectors:combine": page("POST"),
    "vectors:combining": own("combination"),
    "vectors:forecast": own("forecast"),
    "vectors:upload": page("GET", "POST"),
    "vectors:draft": own("vector_draft", "GET", "POST"),
    "vectors:export": own("vector", format="gguf"),
    "vectors:recipe": own("vector"),
    "vectors:detail": own("vector"),
    "vectors:download": own("vector"),
    "vectors:json": own("vector"),
    "vectors:rename": own("vector", "GET", "POST"),
    "vectors:delete": own("vector", "GET", "POST"),
    # experiments
    "experiments:list": page(),
    "experiments:new": page("GET", "POST", recipe="find"),
    "experiments:estimate": page("POST", recipe="find"),
    "experiments:detail": own("experiment"),
    "experiments:status": own("experiment"),
    "experiments:texts": own("experiment"),
    "experiments:export": own("experiment", ending="csv"),
    "experiments:cancel": own("experiment", "POST"),
    "experiments:resume": own("experiment", "POST"),
    "experiments:share": own("experiment", "POST"),
    "experiments:preset": own("experiment", "POST"),
    "experiments:delete": own("experiment", "GET", "POST"),
    # features
    "features:home": page(),
    "features:read": page("POST"),
    "features:reading": own("reading"),
    "features:reading-data": own("reading"),
    "features:reading-more": own("reading", "POST"),
    "features:search": page(),
    "features:example": page("POST"),
    "features:found": own("found"),
    "features:go": page(owner=GONE),  # without a number it leads nowhere
    "features:train": for_staff("GET", "POST", outside=any_of(403)),
    "features:train-estimate": for_staff(outside=any_of(403)),
    "features:training": for_staff(staff=GONE, outside=any_of(403), pk=_training),
    "features:train-on": for_staff(
        "POST", staff=GONE, outside=any_of(403), pk=lambda world: world.owned["training"].pk
    ),
    "features:library": page(),
    "features:source": page(source=SOURCE),
    "features:index": for_staff("POST", source=SOURCE),
    "features:feature": page(source=SOURCE, index="3"),
    "features:facts": page(source=SOURCE, index="3"),
    "features:label": page("POST", source=SOURCE, index="3"),
    "features:propose": page("POST", source=SOURCE, index="3"),
    # attribution
    "attribution:list": page(),
    "attribution:new": page("GET", "POST"),
    "attribution:tokens": page("POST"),
    "attribution:map": page("GET", "POST"),
    "attribution:detail": own("attribution"),
    "attribution:part": own("attribution", "POST"),
    "attribution:rename": own("attribution", "POST"),
    "attribution:share": own("attribution", "POST"),
    "attribution:delete": own("attribution", "GET", "POST"),
    "attribution:export": own("attribution", ending="csv"),
    # documents, and questions answered from them
    "retrieval:home": page(),
    "retrieval:ask": page("GET", "POST"),
    "retrieval:collection-new": page("GET", "POST"),
    "retrieval:collection": own("collection", "GET", "POST"),
    "retrieval:collection-change": own("collection", "POST"),
    "retrieval:collection-share": own("collection", "POST"),
    "retrieval:collection-delete": own("collection", "GET", "POST"),
    "retrieval:document": own("document"),
    "retrieval:document-delete": own("document", "POST"),
    "retrieval:question": own("question"),
    "retrieval:again": own("question", "POST"),
    "retrieval:export": own("question"),
    "retrieval:delete": own("question", "GET", "POST"),
    # behaviors
    "behaviors:list": page(),
    "behaviors:library": page(),
    "behaviors:new": page("GET", "POST"),
    "behaviors:fitting": own("fitting"),
    "behaviors:detail": own("behavior"),
    "behaviors:edit": own("behavior", "GET", "POST"),
    "behaviors:version": own("behavior", "GET", "POST"),
    "behaviors:share": own("behavior", "POST"),
    "behaviors:read": own("behavior", "POST"),
    "behaviors:reading": own("behavior", job=lambda world: world.owned["behavior_reading"].pk),
    "behaviors:monitoring": own("behavior"),
    "behaviors:monitoring_csv": own("behavior"),
    "behaviors:alert": own("behavior", "POST"),
    "behaviors:alerts_seen": own("behavior", "POST"),
    "behaviors:samples": own("behavior", "POST"),
    "behaviors:delete": own("behavior", "GET", "POST"),
    # policies
    "policies:list": page(),
    "policies:new": page("GET", "POST"),
    "policies:presets": page(),
    "policies:preset": own("policy_preset"),
    "policies:preset_clone": own("policy_preset", "POST"),
    "policies:preset_delete": own("policy_preset", "GET", "POST"),
    "policies:runs": page(),
    "policies:run_new": page("GET", "POST"),
    "policies:evaluate_new": page("GET", "POST"),
    "policies:tune_new": page("GET", "POST"),
    "policies:estimate": page("POST", kind="run"),
    "policies:run": own("policy_run"),
    "policies:trace": own("policy_run", owner=TAKEN | {404}),  # 404: nothing that keeps one has succeeded
    "policies:replay": own("policy_run", "POST"),
    "policies:again": own("policy_run", "POST"),
    "policies:best": own("policy_run", "POST"),
    "policies:export": own("policy_run", ending="csv"),
    "policies:run_delete": own("policy_run", "GET", "POST"),
    "policies:detail": own("policy"),
    "policies:version": own("policy", "GET", "POST"),
    "policies:edit": own("policy", "GET", "POST"),
    "policies:share": own("policy", "POST"),
    "policies:clone": own("policy", "POST"),
    "policies:publish": own("policy", "GET", "POST"),
    "policies:delete": own("policy", "GET", "POST"),
    # human rating
    "rating:list": page(),
    "rating:new": page("GET", "POST"),
    "rating:detail": own("study"),
    "rating:status": own("study"),
    "rating:rate": own("study", "GET", "POST"),
    "rating:resume": own("study", "POST"),
    "rating:share": own("study", "POST"),
    "rating:delete": own("study", "GET", "POST"),
    "rating:export": own("study", ending="csv"),
    # OpenAI's API
    # Mechanex: what needs no scope is let in with a key that has none
    "mechanex:signup": open_program(),
    "mechanex:login": open_program(),
    "mechanex:refresh": open_program(),
    "mechanex:forgot-password": open_program(),
    "mechanex:logout": program(),
    "mechanex:whoami": program("GET", key=any_of(200)),
    "mechanex:dashboard": program("GET", key=any_of(200)),
    "mechanex:change-password": program(key=any_of(200)),  # without a new one: a mail to the owner
    "mechanex:change-email": program(key=any_of(422)),
    "mechanex:delete-account": program("DELETE"),
    "mechanex:keys": program("GET", "POST", key=any_of(200, 403)),
    "mechanex:key": program("DELETE", id=lambda world: world.owned["key"].pk),
    "mechanex:balance": program("GET", key=any_of(200)),
    "mechanex:set-model": program(key=any_of(422)),
    "mechanex:models": program("GET"),
    "mechanex:graph": program("GET"),
    "mechanex:paths": program("GET"),
    "mechanex:subscriptions": open_program("GET", statuses=any_of(200)),
    "mechanex:checkout": program(key=GONE),
    "mechanex:waitlist": open_program("GET", statuses=any_of(422)),
    "mechanex:policies": program("GET"),
    "mechanex:policy": program("GET", id=lambda world: world.owned["policy"].pk),
    "mechanex:policy-save": program(),
    "mechanex:policy-run": program(),
    "mechanex:policy-run-stored": program(id=lambda world: world.owned["policy"].pk),
    "mechanex:policy-compare": program(),
    "mechanex:policy-evaluate": program(),
    "mechanex:policy-autotune": program(),
    "mechanex:policy-presets": program("GET"),
    "mechanex:policy-publish": program(),
    "mechanex:policy-clone": program(id=lambda world: world.owned["policy_preset"].pk),
    "mechanex:scores": program(),
    "mechanex:raag": program(),
    "mechanex:generate": program(),
    "mechanex:sample": program(),
    "mechanex:correct": program(),
    "mechanex:steered": program(),
    "mechanex:vector-generate": program(),
    "mechanex:pairs": program(),
    "mechanex:vector-evaluate": program(),
    "mechanex:vector-download": program("GET", vector_id=lambda world: world.owned["vector"].pk),
    "mechanex:vectors": program("GET"),
    "mechanex:vectors-delete": program(),
    "mechanex:vector": program("PATCH", "DELETE", vector_id=lambda world: world.owned["vector"].pk),
    "mechanex:behaviors": program("GET"),
    "mechanex:behavior-create": program(),
    "mechanex:behavior-rename": program("PATCH", behavior_id=lambda world: world.owned["behavior"].pk),
    "mechanex:docs": for_all(*METHODS, statuses=any_of(302, 405)),
    # Neuronpedia
    **{
        f"neuronpedia:{name}": api("POST", owner=any_of(422))
        for name in ("single", "single-batch", "all", "all-batch", "topk", "topk-batch", "source")
    },
    **{f"neuronpedia:{name}": api("POST", owner=any_of(422)) for name in ("tokenize", "nearest", "vector")},
    "neuronpedia:capabilities": api("GET", owner=any_of(200)),
    "health": for_all(statuses=any_of(200)),
    "openai:models": api("GET"),
    "openai:model": api("GET", name=MODEL),
    "openai:chat": api(forms={"POST": {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}}),
    "openai:completions": api(forms={"POST": {"model": MODEL, "prompt": "Hi"}}),
    "openai:responses": api(forms={"POST": {"model": MODEL, "input": "Hi"}}),
    # the workshop, closed to guests
    "workshop:stage": page(owner=any_of(200)),
    "workshop:examples": api("GET", owner=any_of(200)),
    **{f"workshop:{name}": api("POST", owner=any_of(422)) for name in ("generate", "compare")},
    # the older server: the key is in the body, so who sends the request counts for nothing
    **{
        f"older:{name}": Rule({"POST": None}, *(NO_SCOPE,) * 5, json=True, csrf_exempt=NO_SESSION)
        for name in ("all", "completion", "nearest", "test", "topk")
    },
    **{f"neuronpedia:{name}": api("POST", owner=any_of(422)) for name in ("steer", "steer-chat")},
    # REST
    "api-docs": page(),
    "rest:schema": for_all(),
    "rest:no-such-address": for_all(*METHODS, statuses=GONE, csrf_exempt="there is nothing"),
    "rest:datasets": api("GET", "POST"),
    "rest:dataset-import": api("POST"),
    "rest:dataset-describe": api("POST"),
    "rest:dataset": api_own("dataset", "GET", "PATCH", "DELETE"),
    "rest:dataset-pairs": api_own("dataset", "GET", "PUT"),
    "rest:dataset-copy": api_own("dataset", "POST"),
    "rest:dataset-export": api_own("dataset"),
    "rest:dataset-findings": api_own("dataset"),
    "rest:vectors": api("GET"),
    "rest:vector-build": api("POST"),
    "rest:vector-forecast": api("POST"),
    "rest:vector-combine": api("POST"),
    "rest:vector-comparisons": api("POST"),
    "rest:vector-comparison": api_own("comparison"),
    "rest:vector-optimise": api("POST"),
    "rest:vector-import": api("POST", owner=TAKEN | {415}),
    "rest:vector": api_own("vector", "GET", "PATCH", "DELETE"),
    "rest:vector-download": api_own("vector"),
    "rest:vector-recipe": api_own("vector"),
    "rest:feature-sources": api(),
    "rest:feature-source": api(source=SOURCE),
    "rest:feature": api(source=SOURCE, index=3),
    "rest:feature-read": api("POST"),
    "rest:feature-reading": api_own("reading"),
    "rest:feature-search": api("POST"),
    "rest:feature-search-found": api_own("found"),
    "rest:feature-index": Rule({"POST": None}, NO_KEY, NO_SCOPE, NO_SCOPE, TAKEN, NO_SCOPE, json=True),
    "rest:feature-propose": api("POST"),
    "rest:feature-labels": api("GET", "POST"),
    "rest:feature-label": api_own("label", "GET", "PATCH", "DELETE"),
    "rest:behaviors": api("GET"),
    "rest:behavior-fit": api("POST"),
    "rest:behavior": api_own("behavior", "GET", "PATCH", "DELETE"),
    "rest:behavior-versions": api_own("behavior", "POST"),
    "rest:behavior-read": api_own("behavior", "POST"),
    "rest:behavior-reading": api_own("behavior", job=lambda world: world.owned["behavior_reading"].pk),
    "rest:behavior-monitoring": api_own("behavior"),
    "rest:behavior-alert": api_own("behavior", "PUT", "DELETE"),
    "rest:presets": api("GET", "POST"),
    "rest:preset": api_own("preset", "GET", "PATCH", "DELETE"),
    "rest:runs": api("GET", "POST"),
    "rest:run": api_own("run", "GET", "PATCH", "DELETE"),
    "rest:run-events": api_own("run"),
    "rest:run-stop": api_own("run", "POST"),
    "rest:jobs": api("GET"),
    "rest:job": api_own("job"),
    "rest:job-cancel": api_own("job", "POST"),
    "rest:job-finish": api_own("job", "POST"),
    "rest:job-events": api_own("job"),
    "rest:experiments": api("GET", "POST"),
    "rest:experiment": api_own("experiment", "GET", "DELETE"),
    "rest:experiment-results": api_own("experiment"),
    "rest:experiment-cancel": api_own("experiment", "POST"),
    "rest:experiment-resume": api_own("experiment", "POST"),
    "rest:attributions": api("GET", "POST"),
    "rest:attribution-map": api("GET", "POST"),
    "rest:attribution": api_own("attribution", "GET", "PATCH", "DELETE"),
    "rest:attribution-part": api_own("attribution", kind="attribute"),
    "rest:attribution-verify": api_own("attribution", "POST"),
    "rest:attribution-features": api_own("attribution", "POST"),
    "rest:attribution-lens": api_own("attribution", "POST"),
    "rest:attribution-direct": api_own("attribution", "POST"),
    "rest:attribution-export": api_own("attribution"),
    "rest:collections": api("GET", "POST"),
    "rest:collection": api_own("collection", "GET", "PATCH", "DELETE"),
    "rest:collection-documents": api_own("collection", "GET", "POST"),
    "rest:collection-document": api_own(
        "collection", "GET", "DELETE", document=lambda world: world.owned["document"].pk
    ),
    "rest:collection-search": api_own("collection", "POST"),
    "rest:raag": api("GET", "POST"),
    "rest:raag-one": api_own("question", "GET", "DELETE"),
    "rest:raag-cancel": api_own("question", "POST"),
    "rest:policies": api("GET", "POST"),
    "rest:policy": api_own("policy", "GET", "PATCH", "DELETE"),
    "rest:policy-versions": api_own("policy", "GET", "POST"),
    "rest:policy-clone": api_own("policy", "POST"),
    "rest:policy-run-start": api("POST"),
    "rest:policy-compare": api("POST"),
    "rest:policy-evaluate": api("POST"),
    "rest:policy-autotune": api("POST"),
    "rest:policy-runs": api("GET"),
    "rest:policy-run": api_own("policy_run", "GET", "DELETE"),
    "rest:policy-run-trace": api_own("policy_run"),
    "rest:policy-run-cancel": api_own("policy_run", "POST"),
    "rest:policy-run-replay": api_own("policy_run", "POST"),
    "rest:policy-run-best": api_own("policy_run", "POST"),
    "rest:policy-presets": api("GET"),
    "rest:policy-preset-publish": api("POST"),
    "rest:policy-preset": api_own("policy_preset", "GET", "DELETE"),
    "rest:policy-preset-clone": api_own("policy_preset", "POST"),
    "rest:models": api_for_any_key(),
    "rest:default-model": api_for_any_key(),
    "rest:model": api_for_any_key(id=MODEL),
    "rest:workers": api_for_staff("GET"),
    "rest:worker-load": api_for_staff("POST", id="fake"),
    "rest:worker-command": api_for_staff("POST", id="fake", command="resume"),
    "rest:keys": api("GET", "POST"),
    "rest:key": api_own("key", "GET", "DELETE"),
    "rest:usage": api(),
    "rest:key-rotate": api_own("key", "POST"),
}

# Django's admin: every route of it, by one rule each for reading and for what its site offers to all.
ADMIN = Rule(
    dict.fromkeys(METHODS), SIGN_IN, SIGN_IN, any_of(302, 403, 404, 405), TAKEN | {404, 405},
    any_of(302, 403, 404, 405),
    values={name: _always(value) for name, value in {
        "object_id": "1", "content_type_id": 1, "app_label": "accounts", "url": "nothing/",
    }.items()},
)  # fmt: skip
ADMIN_OPEN = for_all("GET", "POST", statuses=TAKEN | {404, 405})  # sign-in and sign-out pages hold nothing


def rule_of(name: str) -> Rule | None:
    if name in RULES:
        return RULES[name]
    if name in ("admin:login", "admin:logout"):
        return ADMIN_OPEN
    return ADMIN if name.startswith("admin:") else None


# ---- websockets ----

SOCKETS = {"ws/playground/"}  # each is driven by tests/guards/test_sockets.py
