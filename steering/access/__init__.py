"""Who may do what and how much of it: API keys, limits, and the ledger of all work."""
