"""Sparse autoencoders of the served model: finding, loading, reading and indexing them. `sources.py` is the way in.

Nothing here imports sae-lens before the first SAE is loaded; listing what there is needs neither it nor torch.
"""
