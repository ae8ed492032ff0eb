"""The playground: runs of up to six lanes that stream side by side, are saved as they go, and open again."""
