from django.apps import AppConfig


class WorkersConfig(AppConfig):
    name = "steering.workers"
    label = "workers"
