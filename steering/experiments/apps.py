from django.apps import AppConfig


class ExperimentsConfig(AppConfig):
    name = "steering.experiments"
    label = "experiments"

    def ready(self) -> None:
        from steering.experiments import leaving

        leaving.connect()
