"""The demo of the workshop."""
