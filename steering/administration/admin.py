"""Every page of the admin site, in the modules named here."""

from steering.administration import content, log, metering, people, running  # noqa: F401
