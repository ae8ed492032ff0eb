"""What was done here that others must be able to look up later: who, what, when, from where."""

from __future__ import annotations

from typing import Any, NoReturn

from django.db import models
from django.utils import timezone


class AuditEntry(models.Model):
    """One deed. It is written once: neither the admin pages nor this class change or delete it.

    `actor_name` and `target` are kept as words, since accounts and keys may be gone when somebody looks. `details`
    holds no secret, no digest and no text of anybody's. `actor_id` is null for what the server does by itself.
    """

    class Action(models.TextChoices):
        KEY_CREATED = "key_created", "API key created"
        KEY_ROTATED = "key_rotated", "API key rotated"
        KEY_REVOKED = "key_revoked", "API key revoked"
        LIMIT_CHANGED = "limit_changed", "Limit changed"
        LIMIT_REMOVED = "limit_removed", "Limit removed"
        RIGHTS_CHANGED = "rights_changed", "Rights changed"
        STAFF_SIGNED_IN = "staff_signed_in", "Staff signed in"
        MODEL_LOADED = "model_loaded", "Model load ordered"
        MODEL_UNLOADED = "model_unloaded", "Model unload ordered"
        WORKER_DRAINED = "worker_drained", "Worker drained"
        WORKER_RESUMED = "worker_resumed", "Worker resumed"
        WORK_STOPPED = "work_stopped", "Work stopped"
        PRESET_UNSHARED = "preset_unshared", "Preset unshared"
        POLICY_SHARED = "policy_shared", "Policy shared"
        POLICY_UNSHARED = "policy_unshared", "Policy unshared"
        BEHAVIOR_SHARED = "behavior_shared", "Behavior shared"
        BEHAVIOR_UNSHARED = "behavior_unshared", "Behavior unshared"
        BEHAVIOR_DELETED = "behavior_deleted", "Behavior deleted"
        BEHAVIOR_SAMPLES = "behavior_samples", "Behavior samples switched"
        ACCOUNT_CREATED = "account_created", "Account created"
        ACCOUNT_DELETED = "account_deleted", "Account deleted"
        TOKEN_REUSED = "token_reused", "Refresh token used twice"

    at = models.DateTimeField(default=timezone.now, db_index=True, editable=False)
    action = models.CharField(max_length=24, choices=Action, db_index=True, editable=False)
    actor_id = models.BigIntegerField(null=True, editable=False)  # no foreign key: rows outlive accounts unchanged
    actor_name = models.CharField("who", max_length=254, editable=False)
    target = models.CharField("what", max_length=300, blank=True, editable=False)
    details = models.JSONField(default=dict, blank=True, editable=False)
    address = models.CharField("from", max_length=45, blank=True, editable=False)
    request_id = models.CharField(max_length=80, blank=True, editable=False)

    class Meta:
        ordering = ("-at", "-pk")
        verbose_name = "audit entry"
        verbose_name_plural = "audit log"

    def __str__(self) -> str:
        return f"{self.get_action_display()}: {self.target}" if self.target else self.get_action_display()

    def save(self, *args: Any, **kwargs: Any) -> None:
        assert self._state.adding, "an entry of the audit log is written once"
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AssertionError("an entry of the audit log stays")
