"""On which passages of its prompt an answer rests: measured by taking them out, foretold by attention and gradient."""
