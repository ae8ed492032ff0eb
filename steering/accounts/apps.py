from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "steering.accounts"
    verbose_name = "Accounts"
