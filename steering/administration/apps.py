from django.apps import AppConfig


class AdministrationConfig(AppConfig):
    name = "steering.administration"
    label = "administration"
    verbose_name = "Operation"
