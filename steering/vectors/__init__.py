"""Steering vectors: built from datasets, kept in a library, explained by their figures."""
