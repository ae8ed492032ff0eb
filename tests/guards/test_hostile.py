"""Hostile strings in every field, and the pages that show them, in a real Chromium: nothing runs, nothing breaks."""

from __future__ import annotations

import base64
import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from inference.store import dump, seal
from tests.e2e.conftest import CHROMIUM, SWITCHES
from tests.e2e.visit import Visit
from tests.guards.hostile import CORPUS, SCRIPTS, WRITABLE
from tests.guards.running import Server
from tests.steering.features import SOURCE
from tests.steering.vector_files import make_vector

pytestmark = pytest.mark.e2e

# Each string is sent to every field, and lists show them all; pages about one thing are opened for these.
OPENED = ("closing", "handler", "attribute", "link", "frame", "template", "json")
PARTS = ("patch_exactly", "attribute_features", "logit_lens", "direct_logits")
POLICIES = ("policy", "policy_run", "policy_preset")
LAB = ("asking", "experiment", "study", "combination", "build", "attribution")
SHOWN = {name: CORPUS[name] for name in (*OPENED, "controls", "rtl")}

# Sends a form, or JSON, as a page of ours would. A value may be a list, or {name, data} for a file.
SEND = """async ({path, fields, json}) => {
  const token = document.cookie.match(/csrftoken=([^;]+)/)?.[1] ?? '';
  const headers = {'X-CSRFToken': token};
  let body;
  if (json !== undefined) { body = json; headers['Content-Type'] = 'application/json'; }
  else {
    body = new FormData();
    for (const [name, value] of Object.entries(fields))
      for (const one of Array.isArray(value) ? value : [value])
        if (one && one.data !== undefined)
          body.append(name, new Blob([Uint8Array.from(atob(one.data), c => c.charCodeAt(0))]), one.name);
        else body.append(name, one);
  }
  const response = await fetch(path, {method: 'POST', headers, body});
  return [response.status, new URL(response.url).pathname, (await response.text()).slice(0, 2000)];
}"""

RUN = """(text) => new Promise((resolve) => {
  const socket = new WebSocket(location.origin.replace('http', 'ws') + '/ws/playground/', 'steerboard.v1');
  let url = '';
  socket.onopen = () => socket.send(text);
  socket.onclose = () => resolve(url || 'closed');
  socket.onmessage = ({data}) => {
    const message = JSON.parse(data);
    if (message.t === 'accepted') url = message.url;
    if (message.t === 'error') { url = 'refused: ' + message.message; socket.close(); }
    if (message.t === 'events' && message.events.at(-1).t === 'run_finished') socket.close();
  };
})"""

MARKS = """() => { // of an address counts where it leads: our own pages may carry any words as parameters
  const leads = u => { try { return new URL(u, document.baseURI).host; } catch { return u; } };
  return [
  window.owned ?? null,
  ({}).owned ?? null,
  [...document.querySelectorAll('[href],[src],[action],[formaction]')].map(
    e => e.getAttribute('href') ?? e.getAttribute('src') ?? e.getAttribute('action') ?? e.getAttribute('formaction')
  ).filter(u => /^[\\s\\u0000-\\u0020]*(javascript|data:text|vbscript):/i.test(u) || /evil\\.example/.test(leads(u))),
  [...document.querySelectorAll('*')].flatMap(e => [...e.attributes].map(a => a.name)).filter(n => n.startsWith('on')),
];}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not CHROMIUM:
        pytest.skip("Chromium is not installed (Debian, Ubuntu: apt install chromium)")
    running = Server(tmp_path_factory.mktemp("hostile"), "json", "hostile")
    yield running
    running.process.kill()


@pytest.fixture(scope="module")
def browser(server: Server) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=shutil.which(str(CHROMIUM)), args=SWITCHES)


class Person:
    """The first account in a browser. `send` and `run` push, and keep what came of it in `refused`."""

    def __init__(self, browser: Any, server: Server):
        self.context = browser.new_context(user_agent=SCRIPTS["script"])
        self.context.add_cookies([{"name": "sessionid", "value": server.cookie, "url": server.url}])
        self.page = self.context.new_page()
        self.page.goto(server.url + "/accounts/profile/")
        self.broken: list[str] = []

    def send(self, path: str, fields: dict[str, Any] | None = None, data: Any = None) -> str:
        """Where it led. Surrogates travel as JSON escapes."""
        said = {"path": path, "fields": fields or {}} | ({} if data is None else {"json": json.dumps(data)})
        status, led, text = self.page.evaluate(SEND, said)
        if status >= 500:
            self.broken.append(f"{path}: {status} {text[:300]}")
        return str(led) if status < 400 else ""

    def run(self, settings: dict[str, Any]) -> str:
        message = {"t": "run", "idem": str(uuid.uuid4()), "settings": settings}

        return str(self.page.evaluate(RUN, json.dumps(message)))


@pytest.fixture(scope="module")
def pushed(browser: Any, server: Server) -> dict[str, Any]:
    """Everything sent once; {what: where it is shown}."""
    person = Person(browser, server)
    shown: dict[str, list[str]] = {}

    def keep(what: str, name: str, path: str) -> None:
        if path and name in SHOWN:
            shown.setdefault(what, []).append(path)

    vectors: list[str] = []
    for n, (name, text) in enumerate(WRITABLE.items()):
        pairs = {role: [text, text, "x"] for role in ("prompt", "positive")} | {
            "negative": [f"no {text}", text[::-1], "y"]
        }
        about = {"name": text, "description": text, "was": ["", "", ""], "how": "type", **pairs}
        keep("dataset", name, person.send("/datasets/new/", about))
        person.send("/datasets/new/", import_of(text))
        file = {"name": f"{text[:80]}.safetensors", "data": encoded(vector_file(n, text))}
        led = person.send("/vectors/upload/", {"file": file, "name": text})
        keep("vector", name, led)
        if led.count("/") == 3 and len(led) > 30:
            vectors.append(led.split("/")[2])
            person.send(f"{led}rename/", {"name": text})
        person.send("/keys/new/", {"name": text, "scopes": ["generate"], "lifetime": ""})
        person.send("/accounts/profile/", {"name": text})
        person.send("/accounts/email/", {"email": text, "action_add": ""})
        person.send("/accounts/invitations/", {"email": text})
        person.send("/models/choose/", {"model": text, "next": text})
        person.send("/vectors/build/", {"dataset": text, "name": text, "method": text, "layers": text})
        keep("asking", name, person.send("/datasets/describe/", asking(text)))
        person.send("/datasets/describe/", asking(text) | dict.fromkeys(("count", "seed", "how", "judge"), text))
    for name, text in WRITABLE.items():
        for what, (path, fields) in lab(text, vectors, dataset_of(shown)).items():
            led = person.send(path, fields)
            keep(what, name, led)
            for kind in PARTS if what == "attribution" and led else ():
                person.send(f"{led}parts/", {"kind": kind, "source": SOURCE, "top": "5"})
            person.send(path, dict.fromkeys(fields, text))
    for name, text in CORPUS.items():
        lanes = [{"key": key, "name": label, "system_prompt": text} for key, label in (("A", text[:40]), ("B", "B"))]
        led = person.run({"input": text, "lanes": lanes, "sampling": {"stop": [text[:20]], "max_tokens": 40}})
        keep("run", name, led if led.startswith("/") else "")
        led = person.send("/policies/new/", policy_of(name, text))
        keep("policy", name, led)
        if led:
            asked = {"policies": led.split("/")[2], "prompt": text, "max_new_tokens": "24", "chat": "on", "seed": "1"}
            keep("policy_run", name, person.send("/policies/run/", asked))
            published = {"name": text, "tags": text[:39], "description": text, "visibility": "public"}
            keep("policy_preset", name, person.send(f"{led}publish/", published))
        use = {"vector": vectors[0], "strength": 0.5, "layer": 2}
        preset = {"name": f"p-{name}", "version": "1.0", "description": text[:400]}
        content = {"uses": [use], "system_prompt": text, "sampling": {}}
        person.send("/presets/save/", data=preset | {"content": content})
        person.send("/presets/save/", data=preset | {"name": text, "content": content})
        for path, body in programs(text).items():
            person.send(path, data=body)
    for name in OPENED[:4]:  # again: of a person's drafts the latest are kept
        keep("draft", name, person.send("/datasets/new/", import_of(SCRIPTS[name])))
    person.send("/accounts/profile/", {"name": SCRIPTS["handler"][:80]})
    broken = person.broken
    person.context.close()
    return {"shown": shown, "broken": broken}


def asking(text: str) -> dict[str, Any]:
    """A description, of which the model is to write pairs."""
    words = {"trait": text[:200], "opposite": f"no {text}"[:200], "name": text[:120], "prompts": text}
    return words | {"how": "description", "count": "6", "judge": "none", "max_tokens": "8", "rounds": "1"}


def dataset_of(shown: dict[str, list[str]]) -> str:
    return shown["dataset"][0].split("/")[2]


def lab(text: str, vectors: list[str], dataset: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Forms of the vector lab, valid but for the string, where it is allowed."""
    experiment = {"name": text, "vectors": vectors[0], "layers": "2", "strengths": "0.2", "operations": "add"}
    behaviour = {
        "kind": "lexicon_rate",
        "better": "higher",
        "terms": text,
        "against": text,
        "concept": text,
        "wish": text,
    }
    writing = {"max_tokens": "8", "temperature": "0", "seed": "1", "floor": "0.3", "directions": "0"}
    prompts = f"{text}\nHow are you?"
    compared = {"name": text, "operation": "sum", "v": vectors[:2], "weight": ["1", "1"]}
    rated = {"name": text, "question": text, "source": "vector", "vector": vectors[0], "layer": "2", "strength": "0.2"}
    return {
        "experiment": ("/experiments/new/sweep/", experiment | behaviour | writing | {"prompts": prompts}),
        "study": ("/rating/new/", rated | {"prompts": prompts, "max_tokens": "8", "temperature": "0", "seed": "1"}),
        "combination": ("/vectors/combine/", compared),
        "attribution": ("/attribution/new/", question_of(text)),
        "build": ("/vectors/build/", {"dataset": dataset, "name": text, "method": "melbo", "layer": "2"}),
    }


def policy_of(name: str, text: str) -> dict[str, Any]:
    """As the JSON view sends it; the string wherever a policy takes a text that is checked by nothing."""
    content = {
        "task_profile": {"name": text, "category": text, "description": text},
        "objective": {"name": text},
        "constraints": {"forbidden_terms": [text[:1000]], "required_fields": [text[:1000]]},
        "metadata": {text: text},
    }
    about = {"name": f"p-{name}", "description": text, "version": "1.0"}
    return about | {"base": json.dumps(content), "view": "json", "json": json.dumps(content)}


def question_of(text: str) -> dict[str, Any]:
    token = text.replace("\r", " ").replace("\n", " ")[:90]
    prompts = {"clean_prompt": f"x{text[:9000]}", "corrupted_prompt": f"y{text[:9000]}"}
    asked = {"metric": "logit_difference", "targets": f"x{token}", "against": f"y{token}", "method": "patching"}
    return prompts | asked | {"name": text[:119], "sites": ["resid_pre", "z"]}


def import_of(text: str) -> dict[str, Any]:
    line = json.dumps({"prompt": text, "positive": text, "negative": "n" + text}) + "\nnot json " + text[:50]
    file = {"name": f"{text[:80]}.jsonl", "data": encoded(line)}
    return {"how": "upload", "file": file, "name": text, "description": ""}


def programs(text: str) -> dict[str, Any]:
    """Requests of programs with the string wherever a text may stand."""
    message = [{"role": "system", "content": text}, {"role": "user", "content": text, "name": text}]
    return {
        "/v1/chat/completions": {"model": "SmolLM2-135M-Instruct", "messages": message[:1], "stop": text[:20]},
        "/v1/completions": {"model": text, "prompt": text, "suffix": text},
        "/v1/responses": {"model": "SmolLM2-135M-Instruct", "input": text, "instructions": text},
        "/api/v1/datasets/": {"name": text, "description": text, "pairs": [{"positive": text, "negative": "n"}]},
        "/api/v1/runs/": {"input": text, "lanes": [{"name": text, "system_prompt": text}]},
        "/api/v1/presets/": {"name": text, "description": text, "system_prompt": text, "uses": []},
        "/api/v1/policies/": {"name": text, "description": text, "policy": {"sampling": {"method": text}}},
        "/api/v1/policies/run/": {"policy": {"constraints": {"regex_pattern": text}}, "prompt": text, "wait": 0},
        "/api/v1/policies/presets/publish/": {"name": text, "policy": {"metadata": {"x": text}}, "tags": [text[:40]]},
        "/api/v1/keys/": {"name": text, "scopes": [text]},
        "/api/v1/vectors/build/": {"dataset": text, "name": text, "model": text},
        "/api/v1/vectors/forecast/": {"dataset": text, "model": text},
        "/api/v1/vectors/optimise/": {"name": text, "layer": 2, "datapoints": [{"prompt": text, "promote": [text]}]},
        "/api/v1/vectors/combine/": {"name": text, "operation": text, "terms": [{"vector": text, "weight": 1}]},
        "/api/v1/datasets/describe/": {"trait": text, "opposite": text, "name": text},
        "/api/v1/experiments/": {"recipe": "sweep", "vector": text, "name": text, "settings": {"prompts": [text]}},
    }


def encoded(data: str | bytes) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def vector_file(n: int, text: str) -> bytes:
    """A file from somebody else, whose own words are hostile too."""
    vector = make_vector(seed=100 + n)
    return dump(seal(replace(vector, id="", reason=text[:200], read_positions=text[:200])))


def judge(page: Any, complaints: list[str]) -> None:
    owned, polluted, addresses, handlers = page.evaluate(MARKS)
    assert (owned, polluted, addresses, handlers) == (None, None, [], []), page.url
    assert not complaints, f"{page.url}: {complaints}"


@pytest.fixture
def visit(browser: Any, server: Server) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_cookies([{"name": "sessionid", "value": server.cookie, "url": server.url}])
    dialogs: list[str] = []
    begun = Visit(context, server.url)
    begun.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    yield begun
    assert dialogs == []
    assert not [url for url in begun.requested if url.endswith("/csp-report")]
    begun.end()


def test_no_field_breaks_the_server(pushed: dict[str, Any]) -> None:
    assert not pushed["broken"], "\n".join(pushed["broken"][:20])
    assert {what: len(paths) > 3 for what, paths in pushed["shown"].items()} == dict.fromkeys(
        ("dataset", "draft", "vector", "run", *LAB, *POLICIES), True
    )


LISTS = [
    "/", "/playground/", "/playground/runs/", "/datasets/", "/vectors/", "/jobs/", "/keys/", "/presets/",
    "/accounts/profile/", "/accounts/sessions/", "/accounts/invitations/", "/accounts/email/", "/models/",
    "/vectors/build/", "/keys/new/", "/experiments/", "/experiments/new/sweep/", "/experiments/new/find/", "/rating/",
    "/rating/new/", "/vectors/compare/", "/datasets/describe/", "/attribution/", "/attribution/new/",
    "/attribution/model/", "/policies/", "/policies/new/", "/policies/run/", "/policies/tune/", "/policies/runs/",
    "/policies/presets/",
]  # fmt: skip


@pytest.mark.parametrize("path", LISTS)
def test_a_list_shows_them_as_text(pushed: dict[str, Any], visit: Visit, path: str) -> None:
    page = visit.goto(path)
    page.wait_for_load_state("networkidle")
    judge(page, visit.complaints)


@pytest.mark.parametrize("what", ["dataset", "draft", "vector", "run", *LAB, *POLICIES])
def test_a_page_about_one_shows_it_as_text(pushed: dict[str, Any], visit: Visit, what: str) -> None:
    for path in pushed["shown"][what]:
        page = visit.goto(path)
        page.wait_for_timeout(150)  # plots and library come after the page
        judge(page, visit.complaints)


def test_what_is_searched_for_is_shown_as_text(pushed: dict[str, Any], visit: Visit) -> None:
    for path in ("/vectors/?q=", "/playground/runs/?q=", "/playground/?prompt="):
        for text in (" ".join(SCRIPTS.values()), SCRIPTS["attribute"]):
            page = visit.goto(path + quote(text))
            judge(page, visit.complaints)


def test_the_playground_shows_them_as_the_model_writes(pushed: dict[str, Any], visit: Visit) -> None:
    page = visit.goto("/playground/")
    page.locator("#prompt").fill(SCRIPTS["handler"])
    page.locator("#run").click()
    page.locator('.answer[data-lane="A"] .answer-bar:not([hidden])').wait_for(state="attached")
    assert "window.owned=1" in page.locator('.answer[data-lane="A"] .out').inner_text()
    judge(page, visit.complaints)
