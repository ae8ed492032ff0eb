"""The model side of Steerboard: engine, interventions, vectors. Knows nothing of Django, accounts or HTTP."""
