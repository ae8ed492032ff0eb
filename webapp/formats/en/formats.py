"""How dates look where a template does not say: with the month as a word, so that nobody confuses it with the day."""

DATE_FORMAT = "j M Y"
TIME_FORMAT = "H:i"
DATETIME_FORMAT = "j M Y, H:i"
