"""Training sparse autoencoders on a served model's own activations, with sae-lens's training classes.

`job.py` is the whole as a generator; `inference/saes/train.py` the command. Read `windows.py` (what is read),
`rounds.py` (activations, kept on disk), `trainer.py` (sae-lens's trainer, one step at a time), `checkpoint.py` (what a
kill must not lose), `measure.py` (what the result is worth) and `result.py` (what is kept).
"""
