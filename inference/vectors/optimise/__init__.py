"""Vectors found by gradient descent: `job.optimise_vector` is the way in."""
