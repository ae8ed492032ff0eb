"""A policy in the making: a form that explains itself, and the same policy as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import QueryDict

from inference.errors import InferenceError
from inference.policies.schema import Policy
from inference.types import ModelInfo
from inference.ways import METHODS
from steering.naming import check_description
from steering.policies import library
from steering.policies.chosen import UNIT_TESTS_OFF, refuse_unit_tests
from steering.policies.content import OUTSIDE, as_text, check_content, parse_text, shown_text
from steering.policies.fields import FIELDS, SECTIONS, UNIT_TESTS, Field, broken_json, merged, path_of, shown
from steering.presets import library as presets
from steering.presets.names import SEPARATOR
from steering.vectors.models import Vector

FORM, JSON = "form", "json"


@dataclass
class Row:
    """A field as the page draws it."""

    field: Field
    value: Any
    error: str = ""
    choices: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    disabled: bool = False


class Editor:
    """A policy in the making: as a form or as JSON, whatever is wrong with it.

    `content` is the policy as JSON. `view` is how it is shown; `text` is the JSON as typed. Errors are by path, by name
    of the fields around the policy ("name", "version", "description", "json"), and "" for the whole.
    """

    def __init__(self, user: Any, model: ModelInfo, content: dict[str, Any], about: Mapping[str, str]):
        self.user, self.model = user, model
        self.about = {name: about.get(name, "") for name in ("name", "version", "description")}
        self.content = {name: value for name, value in content.items() if name not in OUTSIDE}
        self.view, self.text = FORM, as_text(self.content)
        self.errors: dict[str, str] = {}

    @classmethod
    def posted(cls, user: Any, model: ModelInfo, post: QueryDict) -> Editor:
        """As a browser sends it back, in the view that it came from."""
        base = _base_of(post)
        editor = cls(
            user, model, base, {name: post.get(name, "").strip() for name in ("name", "version", "description")}
        )
        if post.get("view") == JSON:
            editor._read_json(post.get("json", ""))
        else:
            editor.content = merged(base, post)
            editor.text = as_text(editor.content)
        return editor

    def _read_json(self, text: str) -> None:
        self.view, self.text = JSON, text.replace("\r\n", "\n")
        try:
            found = parse_text(self.text)
        except InferenceError as error:
            self.errors["json"] = shown_text(error.message)
            return
        for name in ("name", "description"):
            if isinstance(found.get(name), str) and not self.about[name]:
                self.about[name] = library.free_name(found[name]) if name == "name" else shown_text(found[name])
        self.content = {name: value for name, value in found.items() if name not in OUTSIDE}

    def switch(self, view: str) -> None:
        """Show it the other way. What cannot be read as JSON stays where it was typed."""
        if "json" not in self.errors:
            self.view, self.text = view, as_text(self.content)
            self._check_fields()

    def valid(self) -> bool:
        """Whether it can be saved; says why not, each reason at its place."""
        if "json" in self.errors:
            return False
        self._check_about()
        self._check_fields()
        return not self.errors

    def _check_about(self) -> None:
        checks: dict[str, Callable[[str], None]] = {
            "name": library.check_name,
            "description": check_description,
        }
        if self.about["version"]:
            checks["version"] = library.check_version
        for name, check in checks.items():
            try:
                check(self.about[name])
            except InferenceError as error:
                self.errors[name] = error.message

    def _check_fields(self) -> None:
        broken = broken_json(self.content)
        self.errors |= broken
        try:
            refuse_unit_tests(check_content(_without(self.content, broken)))
        except InferenceError as error:
            self.refuse(error)

    def refuse(self, error: InferenceError) -> None:
        """Put what was refused where it belongs."""
        places = {"policy_exists": "version", "vector_not_found": "steering.vector_id"}
        places |= {
            "unit_tests_off": "verifiers.enabled",
            "bad_enabled": "verifiers.enabled",
            "policy_name": "name",
            "policy_version": "version",
        }
        path = places.get(error.code) or path_of(error.message) or _parameter(error.code)
        self.errors[path] = shown_text(error.message)

    def policy(self) -> Policy | None:
        try:
            return check_content(self.content)
        except InferenceError:
            return None

    # ---- drawing ----

    @property
    def base(self) -> str:
        return json.dumps(self.content)

    def sections(self) -> list[dict[str, Any]]:
        return [{"section": one, "rows": [self._row(f) for f in one.fields]} for one in SECTIONS]

    def _row(self, field: Field) -> Row:
        off = field.path in UNIT_TESTS and not settings.STEERBOARD_UNIT_TESTS
        row = Row(field, shown(field, self.content), self.errors.get(field.path, ""), disabled=off)
        row.choices = self._choices(field, row.value)
        return row

    def _choices(self, field: Field, value: Any) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        if field.path == "sampling.method":
            found = [
                (name, f"{name}: {way.about[:1].lower()}{way.about[1:].rstrip('.')}") for name, way in METHODS.items()
            ]
        elif field.kind == "vector":
            found = [("", "none"), *((str(v.pk), _titled(v)) for v in self._vectors())]
        elif field.kind == "preset":
            found = [("", "none"), *((name, name) for name in self._presets())]
        elif field.choices:
            found = [(name, name) for name in field.choices]
        known = {name for name, _ in found}
        others = [value] if isinstance(value, str) and value else value if isinstance(value, list) else []
        if found:
            found += [(str(other), f"{other} (not in the list)") for other in others if other not in known]
        return found

    def _vectors(self) -> list[Vector]:
        visible = Vector.objects.visible_to(self.user).in_library_order()
        return [vector for vector in visible if vector.usable_on(self.model)]

    def _presets(self) -> list[str]:
        known = presets.listed(self.user, self.model.id) if self.model.id else []
        return sorted({presets.name_for(self.user, one).partition(SEPARATOR)[2].partition("@")[0] for one in known})

    @property
    def unit_tests_off(self) -> str:
        return "" if settings.STEERBOARD_UNIT_TESTS else UNIT_TESTS_OFF

    @property
    def general(self) -> list[str]:
        """What is said above the form: all that has no field of its own in this view."""
        here = {"json"} if self.view == JSON else set(FIELDS)
        return [said for path, said in self.errors.items() if path not in here | {"name", "version", "description"}]

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Every error with its path, for the JSON view."""
        return [(path, said) for path, said in self.errors.items() if path]


def _without(content: dict[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    """What is known to be wrong left out, so that the next thing is found too."""
    left = {section: {**part} if isinstance(part, dict) else part for section, part in content.items()}
    for path in paths:
        section, _, name = path.partition(".")
        left[section].pop(name)
    return left


def _titled(vector: Vector) -> str:
    return f"{vector.name} · L{vector.facts.layer}{' · starter' if vector.is_starter else ''}"


def _base_of(post: QueryDict) -> dict[str, Any]:
    try:
        return parse_text(post.get("base", ""))
    except InferenceError:
        return {}


def _parameter(code: str) -> str:
    """bad_top_k → sampling.top_k"""
    for path in FIELDS:
        if code in (f"bad_{path.partition('.')[2]}", f"{'unknown_method' if path == 'sampling.method' else ''}"):
            return path
    return ""
