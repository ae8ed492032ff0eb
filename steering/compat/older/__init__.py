"""The four calls of the older inference server."""
