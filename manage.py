#!/usr/bin/env python
"""Django's command line for Steerboard. `manage.py serve` starts it."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:  # a setting or the data folder: the message is the cure, a traceback is not
        sys.exit(str(error))


if __name__ == "__main__":
    main()
