"""Make the first account and print a cookie that is signed in to it."""

from __future__ import annotations

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "webapp.settings"

import django

django.setup()

from django.conf import settings
from django.test import Client

from steering.accounts.models import User

if __name__ == "__main__":
    client = Client()
    client.force_login(User.objects.first_account())
    print(f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}")
