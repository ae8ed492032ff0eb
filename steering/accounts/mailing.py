"""Mails: one text file each, whose first line is the subject."""

from __future__ import annotations

import logging
import smtplib
from typing import Any

from django.core.mail import send_mail
from django.template.loader import render_to_string

logger = logging.getLogger(__name__)


class MailNotSent(Exception):
    """The mail server did not take a mail. Nobody else is to blame, so pages answer 503."""


def send(name: str, to: str, context: dict[str, Any]) -> None:
    """Send `templates/accounts/mail/<name>.txt`. Raises MailNotSent."""
    subject, _, body = render_to_string(f"accounts/mail/{name}.txt", context).strip().partition("\n")
    try:
        send_mail(" ".join(subject.split()), body.strip() + "\n", None, [to])
    except (smtplib.SMTPException, OSError) as error:
        logger.exception("A mail could not be sent")
        raise MailNotSent from error
