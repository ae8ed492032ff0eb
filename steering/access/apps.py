from django.apps import AppConfig


class AccessConfig(AppConfig):
    name = "steering.access"
    label = "access"
    verbose_name = "Keys and limits"
