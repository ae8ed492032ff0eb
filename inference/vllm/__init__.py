"""vLLM's engine behind the same four verbs: its scheduler, paged cache and kernels, our steering, sampling and text."""
