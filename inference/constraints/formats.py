"""The string formats of JSON Schema that can be kept exactly, as patterns that the whole string matches.

Each allows only what every checker takes: dates that exist, no leap seconds, the strict forms of the RFCs.
"""

from __future__ import annotations

_FOURS = "(?:0[48]|[2468][048]|[13579][26])"  # the last two digits of leap years that end no century
_LEAP = f"(?:[0-9]{{2}}{_FOURS}|{_FOURS}00)"
_YEAR = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"  # not 0000
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    f"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP}-02-29)"
)
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
_ZONE = "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_TIME_SPAN = "T(?:[0-9]{1,4}H(?:[0-9]{1,4}M(?:[0-9]{1,4}S)?)?|[0-9]{1,4}M(?:[0-9]{1,4}S)?|[0-9]{1,4}S)"
_DATE_SPAN = "(?:[0-9]{1,4}Y(?:[0-9]{1,4}M(?:[0-9]{1,4}D)?)?|[0-9]{1,4}M(?:[0-9]{1,4}D)?|[0-9]{1,4}D)"
_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_GROUP = "[0-9a-fA-F]{1,4}"
_HOST = rf"{_LABEL}(?:\.{_LABEL}){{0,3}}"
_SEGMENT = "(?:[a-zA-Z0-9._~!$&'()*+,;=:@-]|%[0-9a-fA-F]{2})*"
_ATOM = "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+"


def _ipv6() -> str:
    """Eight groups, or up to six with :: for the others."""
    short = [f"(?:{_GROUP}(?::{_GROUP}){{0,{n - 1}}})?::(?:{_GROUP}(?::{_GROUP}){{0,{5 - n}}})?" for n in range(1, 6)]
    return f"(?:(?:{_GROUP}:){{7}}{_GROUP}|{'|'.join(short)})"


FORMATS = {
    "date": _DATE,
    "time": f"{_CLOCK}{_ZONE}",
    "date-time": f"{_DATE}T{_CLOCK}{_ZONE}",
    "duration": f"P(?:{_DATE_SPAN}(?:{_TIME_SPAN})?|{_TIME_SPAN}|[0-9]{{1,4}}W)",
    "email": rf"{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})+",
    "hostname": _HOST,
    "ipv4": rf"{_BYTE}(?:\.{_BYTE}){{3}}",
    "ipv6": _ipv6(),
    "uuid": "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}",
    "uri": (
        rf"[a-zA-Z][a-zA-Z0-9+.-]*://{_HOST}(?::[0-9]{{1,5}})?(?:/{_SEGMENT})*"
        r"(?:\?(?:[a-zA-Z0-9._~!$&'()*+,;=:@/?-]|%[0-9a-fA-F]{2})*)?(?:#(?:[a-zA-Z0-9._~-]|%[0-9a-fA-F]{2})*)?"
    ),
}
