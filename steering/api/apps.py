from django.apps import AppConfig


class ApiConfig(AppConfig):
    name = "steering.api"
    label = "api"

    def ready(self) -> None:
        from steering.api.rest import openapi  # noqa: F401  registers what it teaches the schema
