"""The recipes: pure functions from settings to findings, over a bench."""
