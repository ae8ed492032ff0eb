from django.apps import AppConfig


class AttributionConfig(AppConfig):
    name = "steering.attribution"
    label = "attribution"
