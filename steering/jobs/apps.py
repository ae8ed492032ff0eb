from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "steering.jobs"
    label = "jobs"
