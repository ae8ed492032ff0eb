"""People rate steered and base completions without knowing which is which."""
