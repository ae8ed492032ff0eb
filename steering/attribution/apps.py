from django.apps import AppConfig


class AttributionConfig(AppConfig):
    name = "steering.attribution"
    label = "attribution"

    def ready(self) -> None:
        from steering.attribution import running  # noqa: F401  keeps its jobs' results
