"""What in the model makes an answer: attribution patching, exact patching, SAE features, direct logits, logit lens."""
