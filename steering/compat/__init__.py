"""Programs that exist already, served as they expect: Mechanex, Neuronpedia, the older server, the workshop demo."""
