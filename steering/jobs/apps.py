from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "steering.jobs"
    label = "jobs"

    def ready(self) -> None:
        from steering.jobs import leaving

        leaving.connect()
