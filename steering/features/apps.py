from django.apps import AppConfig


class FeaturesConfig(AppConfig):
    name = "steering.features"
    label = "features"

    def ready(self) -> None:
        from steering.features import proposing, readings, training_runs  # noqa: F401  keep their jobs' results
