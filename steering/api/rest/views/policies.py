"""Policies, and the presets that are made of them. What is done with policies: `policy_runs.py`."""

from __future__ import annotations

from uuid import UUID

from django.urls import reverse
from rest_framework.request import Request
from rest_framework.response import Response

from inference.types import ModelInfo
from steering.api.idempotency import Answer
from steering.api.rest.base import Endpoint, created
from steering.api.rest.named import model_named
from steering.api.rest.openapi import operation
from steering.api.rest.pages import named_and_owned, newest_first, page_of
from steering.api.rest.shapes import policies as shapes
from steering.policies import library
from steering.policies.chosen import choose
from steering.policies.models import PolicyPreset, StoredPolicy

SCOPE = "vectors"
EXAMPLE = {
    "sampling": {"method": "top-p", "top_p": 0.9},
    "constraints": {"json_schema": {"type": "object", "required": ["item"]}},
    "verifiers": {"enabled": ["syntax", "json_schema"]},
    "optimization": {"best_of_n": 4, "retry_on_failure": 1},
}


class Policies(Endpoint):
    scope = SCOPE

    @operation(
        "policies_list",
        "List policies",
        says="All versions of what you may run: your own, those that come with Steerboard, and what others share.",
        scope=SCOPE,
        query=shapes.PolicyQuery,
        answers=shapes.PolicyPage,
    )
    def get(self, request: Request) -> Response:
        query = self.query(shapes.PolicyQuery)
        page, cursor = newest_first(named_and_owned(library.listed(request.user), query, request.user), query)
        return Response(page_of([shapes.policy_to_json(row, request.user) for row in page], cursor))

    @operation(
        "policies_create",
        "Save a policy",
        says="A version never changes: another one under the same name is a new version.",
        scope=SCOPE,
        body=shapes.PolicyCreate,
        answers=shapes.PolicyShape,
        status=201,
        once=True,
        errors=(404,),
        asks={"name": "strict-orders", "policy": EXAMPLE},
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.PolicyCreate)
        content = asked.pop("policy")
        model = model_named("")

        def save() -> Answer:
            policy = library.save(request.user, content=content, model=model, **asked)
            return created(shapes.policy_to_json(policy, request.user), reverse("rest:policy", args=[policy.pk]))

        return self.once(save)


class OnePolicy(Endpoint):
    scope = SCOPE

    @operation("policies_get", "Get a policy", scope=SCOPE, answers=shapes.PolicyShape, errors=(404,))
    def get(self, request: Request, id: UUID) -> Response:
        return Response(shapes.policy_to_json(_listed(self, id), request.user))

    @operation(
        "policies_change",
        "Share or describe a policy",
        says="What a version says never changes: make a new version for that.",
        scope=SCOPE,
        body=shapes.PolicyChange,
        answers=shapes.PolicyShape,
        errors=(404,),
        asks={"shared": True},
    )
    def patch(self, request: Request, id: UUID) -> Response:
        policy = _own(self, id)
        asked = self.read(shapes.PolicyChange)
        if "description" in asked:
            policy.describe(asked["description"])
        if "shared" in asked:
            library.share(policy, asked["shared"])
        return Response(shapes.policy_to_json(policy, request.user))

    @operation(
        "policies_delete",
        "Delete a policy",
        says="This version. Runs with it and presets made of it stay.",
        scope=SCOPE,
        answers=None,
        status=204,
        errors=(404,),
    )
    def delete(self, request: Request, id: UUID) -> Response:
        _own(self, id).delete()
        return Response(status=204)


class Versions(Endpoint):
    scope = SCOPE

    @operation(
        "policies_versions",
        "List the versions of a policy",
        says="Newest first.",
        scope=SCOPE,
        answers=shapes.PolicyVersions,
        errors=(404,),
    )
    def get(self, request: Request, id: UUID) -> Response:
        same = library.versions_of(request.user, _listed(self, id))
        return Response({"data": [shapes.policy_to_json(row, request.user) for row in same]})

    @operation(
        "policies_update",
        "Make a new version",
        says="The version that it is made from stays.",
        scope=SCOPE,
        body=shapes.PolicyVersionCreate,
        answers=shapes.PolicyShape,
        status=201,
        once=True,
        errors=(404,),
        asks={"policy": EXAMPLE},
    )
    def post(self, request: Request, id: UUID) -> Response:
        old = _own(self, id)
        asked = self.read(shapes.PolicyVersionCreate)
        model = model_named("")

        def save() -> Answer:
            new = library.save(
                request.user,
                name=old.name,
                content=asked["policy"],
                model=model,
                version=asked.get("version", ""),
                description=asked.get("description", old.description),
                shared=old.shared,
            )
            return created(shapes.policy_to_json(new, request.user), reverse("rest:policy", args=[new.pk]))

        return self.once(save)


class Clones(Endpoint):
    scope = SCOPE

    @operation(
        "policies_clone",
        "Clone a policy",
        says="One of your own with the same content, such as of one that comes with Steerboard.",
        scope=SCOPE,
        body=shapes.CloneCreate,
        answers=shapes.PolicyShape,
        status=201,
        once=True,
        errors=(404,),
    )
    def post(self, request: Request, id: UUID) -> Response:
        policy = _listed(self, id)
        asked = self.read(shapes.CloneCreate)
        model = model_named("") if policy.model_id else ModelInfo("ready", "")

        def clone() -> Answer:
            made = library.clone(request.user, policy, asked.get("name", ""), model)
            return created(shapes.policy_to_json(made, request.user), reverse("rest:policy", args=[made.pk]))

        return self.once(clone)


# ---- presets ----


class Presets(Endpoint):
    scope = SCOPE

    @operation(
        "policies_presets_list",
        "List presets of policies",
        scope=SCOPE,
        query=shapes.PolicyPresetQuery,
        answers=shapes.PolicyPresetPage,
    )
    def get(self, request: Request) -> Response:
        query = self.query(shapes.PolicyPresetQuery)
        page, cursor = newest_first(library.presets(request.user, public=query["include_public"]), query)
        return Response(page_of([shapes.preset_to_json(row, request.user) for row in page], cursor))


class Publications(Endpoint):
    scope = SCOPE

    @operation(
        "policies_presets_publish",
        "Publish a policy as a preset",
        says="A copy as it is now, for yourself or for everyone here to clone.",
        scope=SCOPE,
        body=shapes.PresetPublish,
        answers=shapes.PolicyPresetShape,
        status=201,
        once=True,
        errors=(404,),
        asks={"name": "Strict orders", "policy": EXAMPLE, "visibility": "public", "tags": ["json"]},
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.PresetPublish)
        chosen = choose(request.user, policy=asked.pop("policy", None), policy_id=asked.pop("policy_id", ""))

        def publish() -> Answer:
            preset = library.publish(request.user, content=chosen.content, **asked)
            where = reverse("rest:policy-preset", args=[preset.pk])
            return created(shapes.preset_to_json(preset, request.user), where)

        return self.once(publish)


class OnePreset(Endpoint):
    scope = SCOPE

    @operation("policies_presets_get", "Get a preset", scope=SCOPE, answers=shapes.PolicyPresetShape, errors=(404,))
    def get(self, request: Request, id: UUID) -> Response:
        return Response(shapes.preset_to_json(self.one(library.presets(request.user), id), request.user))

    @operation("policies_presets_delete", "Delete a preset", scope=SCOPE, answers=None, status=204, errors=(404,))
    def delete(self, request: Request, id: UUID) -> Response:
        self.one(PolicyPreset.objects.owned_by(request.user), id).delete()
        return Response(status=204)


class PresetClones(Endpoint):
    scope = SCOPE

    @operation(
        "policies_presets_clone",
        "Clone a preset into a policy",
        scope=SCOPE,
        body=shapes.CloneCreate,
        answers=shapes.PolicyShape,
        status=201,
        once=True,
        errors=(404,),
    )
    def post(self, request: Request, id: UUID) -> Response:
        preset = self.one(library.presets(request.user), id)
        asked = self.read(shapes.CloneCreate)

        def clone() -> Answer:
            made = library.clone_preset(request.user, preset, asked.get("name", ""))
            return created(shapes.policy_to_json(made, request.user), reverse("rest:policy", args=[made.pk]))

        return self.once(clone)


def _listed(endpoint: Endpoint, id: UUID) -> StoredPolicy:
    return endpoint.one(library.listed(endpoint.request.user), id)


def _own(endpoint: Endpoint, id: UUID) -> StoredPolicy:
    return endpoint.one(StoredPolicy.objects.owned_by(endpoint.request.user).select_related("owner"), id)
