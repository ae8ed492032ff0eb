from django.apps import AppConfig


class BehaviorsConfig(AppConfig):
    name = "steering.behaviors"
    label = "behaviors"
