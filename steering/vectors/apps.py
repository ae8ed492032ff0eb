from django.apps import AppConfig


class VectorsConfig(AppConfig):
    name = "steering.vectors"
    label = "vectors"
