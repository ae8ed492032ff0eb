from django.apps import AppConfig


class PlaygroundConfig(AppConfig):
    name = "steering.playground"
    label = "playground"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from steering.playground import examples, leaving  # noqa: F401  examples: what the pages of keys show

        leaving.connect()
