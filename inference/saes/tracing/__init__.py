"""The job ReadActivations: `job.py` reads the texts, the other files gather what was asked for."""
