"""The product's own API: what the pages can do, for programs.

A view authenticates, validates, calls one thing, and answers.
"""
