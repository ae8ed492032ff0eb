from django.apps import AppConfig


class BehaviorsConfig(AppConfig):
    name = "steering.behaviors"
    label = "behaviors"

    def ready(self) -> None:
        from steering.behaviors import fitting  # noqa: F401  names what keeps the results of its jobs
