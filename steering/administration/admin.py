"""Every page of the admin site, in the modules named here."""

from django.contrib import admin

from steering.administration import content, log, metering, people, running  # noqa: F401

admin.site.index_title = "Administration"
