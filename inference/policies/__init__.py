"""Runtime policies: what is asked for, how it is written, what must hold of it, and what happens when it does not.

`schema.Policy` is the whole of what may be asked, `runner.run_policy` runs it, `trace.Trace` is what happened. Knows no
torch and no Django: a model is reached through an `asking.Asker`.
"""
