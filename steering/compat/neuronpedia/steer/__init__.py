"""Steered completions as Neuronpedia's client asks for them."""
