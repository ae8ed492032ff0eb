from django.apps import AppConfig


class AuditConfig(AppConfig):
    name = "steering.audit"
    label = "audit"
    verbose_name = "Audit log"

    def ready(self) -> None:
        from steering.audit import receivers

        receivers.connect()
