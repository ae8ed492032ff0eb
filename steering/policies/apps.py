from django.apps import AppConfig


class PoliciesConfig(AppConfig):
    name = "steering.policies"
    label = "policies"

    def ready(self) -> None:
        from steering.policies import work  # noqa: F401  says how its jobs are done, and keeps what they find

    def load_starters(self) -> str:
        from steering.policies.starters import load_starter_policies

        return f"{len(load_starter_policies())} policies"
