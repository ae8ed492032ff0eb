from django.apps import AppConfig


class FeaturesConfig(AppConfig):
    name = "steering.features"
    label = "features"
