from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "steering.accounts"
    verbose_name = "Accounts"

    def ready(self) -> None:
        from allauth.mfa.signals import authenticator_added

        from steering.accounts import logins

        def end_logins(user: object, **kwargs: object) -> None:
            """They were let in by the password alone."""
            logins.end_all(user)

        authenticator_added.connect(end_logins, weak=False, dispatch_uid="accounts_second_step")
