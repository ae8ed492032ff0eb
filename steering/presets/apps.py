from django.apps import AppConfig


class PresetsConfig(AppConfig):
    name = "steering.presets"
    label = "presets"
