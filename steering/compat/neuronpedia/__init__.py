"""What the package `neuronpedia-inference-client` expects of a server."""
