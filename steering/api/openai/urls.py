from __future__ import annotations

from django.urls import path

from steering.api.openai import views

app_name = "openai"
urlpatterns = [
    path("models", views.models, name="models"),
    path("models/<path:name>", views.model, name="model"),
    path("chat/completions", views.chat_completions, name="chat"),
    path("completions", views.text_completions, name="completions"),
    path("responses", views.create_response, name="responses"),
]
