"""Find passages: documents cut into chunks, two indices over them, and how good a ranking is. No language model."""
