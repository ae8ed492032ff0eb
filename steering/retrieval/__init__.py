"""Collections of documents, questions answered from them, and on which passages each answer rests."""
