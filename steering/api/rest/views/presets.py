from __future__ import annotations

from uuid import UUID

from django.urls import reverse
from rest_framework.request import Request
from rest_framework.response import Response

from steering.api.idempotency import Answer
from steering.api.rest.base import Endpoint, created
from steering.api.rest.named import model_named
from steering.api.rest.openapi import operation
from steering.api.rest.pages import named_and_owned, newest_first, page_of
from steering.api.rest.shapes import presets as shapes
from steering.presets import library
from steering.presets.content import parse_content
from steering.presets.models import Preset

SCOPE = "vectors"


class Presets(Endpoint):
    scope = SCOPE

    @operation(
        "presets_list",
        "List presets",
        says="All versions of what you may use: your own, those that come with Steerboard, and what others share.",
        scope=SCOPE,
        query=shapes.PresetQuery,
        answers=shapes.PresetPage,
    )
    def get(self, request: Request) -> Response:
        query = self.query(shapes.PresetQuery)
        rows = library.listed(request.user, query.get("model", ""))
        page, cursor = newest_first(named_and_owned(rows, query, request.user), query)
        return Response(page_of([shapes.preset_to_json(row, request.user) for row in page], cursor))

    @operation(
        "presets_create",
        "Save a preset",
        says="A version never changes: another one under the same name is a new version.",
        scope=SCOPE,
        body=shapes.PresetCreate,
        answers=shapes.PresetShape,
        status=201,
        once=True,
        errors=(404,),
        asks={
            "name": "calm",
            "uses": [{"vector": "7d1c0c64-4a4e-4b6c-8f0e-0e4a3a2f9b10", "layer": 9, "strength": 0.3}],
            "sampling": {"temperature": 0.4},
        },
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.PresetCreate)
        model = model_named(asked.get("model", ""))
        content = parse_content(shapes.content_of(asked))
        about = {name: asked[name] for name in ("name", "version", "description", "shared")}

        def save() -> Answer:
            preset = library.save(request.user, model=model, content=content, **about)
            return created(shapes.preset_to_json(preset, request.user), reverse("rest:preset", args=[preset.pk]))

        return self.once(save)


class OnePreset(Endpoint):
    scope = SCOPE

    @operation("presets_get", "Get a preset", scope=SCOPE, answers=shapes.PresetShape, errors=(404,))
    def get(self, request: Request, id: UUID) -> Response:
        preset = self.one(library.listed(request.user), id)
        return Response(shapes.preset_to_json(preset, request.user))

    @operation(
        "presets_change",
        "Share a preset, or end that",
        says="Sharing lets everyone on this server use it, with your vectors; its end ends that at once.",
        scope=SCOPE,
        body=shapes.PresetChange,
        answers=shapes.PresetShape,
        errors=(404,),
        asks={"shared": True},
    )
    def patch(self, request: Request, id: UUID) -> Response:
        preset = self.one(Preset.objects.owned_by(request.user), id)
        asked = self.read(shapes.PresetChange)
        library.share(preset, asked["shared"])
        return Response(shapes.preset_to_json(preset, request.user))

    @operation("presets_delete", "Delete a preset", scope=SCOPE, answers=None, status=204, errors=(404,))
    def delete(self, request: Request, id: UUID) -> Response:
        self.one(Preset.objects.owned_by(request.user), id).delete()
        return Response(status=204)
