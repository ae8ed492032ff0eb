"""Which places in the model an answer comes from: questions, what was found, pages."""
