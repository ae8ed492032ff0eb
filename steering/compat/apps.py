from django.apps import AppConfig


class CompatConfig(AppConfig):
    name = "steering.compat"
    label = "compat"
    verbose_name = "Programs of others"

    def ready(self) -> None:
        from steering.compat.mechanex import evaluating, training  # noqa: F401  their jobs may be carried anywhere
