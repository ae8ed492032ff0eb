from django.apps import AppConfig


class CompatConfig(AppConfig):
    name = "steering.compat"
    label = "compat"
    verbose_name = "Programs of others"
