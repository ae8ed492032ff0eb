"""Experiments: a recipe, its measurements, and what they show. They survive the process that runs them."""
