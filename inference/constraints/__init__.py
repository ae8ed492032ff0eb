"""Text that must be JSON, fulfil a schema, match a pattern or follow a grammar: compiled once, then masks per token."""
