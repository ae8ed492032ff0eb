from django.apps import AppConfig


class VectorsConfig(AppConfig):
    name = "steering.vectors"
    label = "vectors"

    def load_starters(self) -> str:
        from steering.vectors.starters import load_starter_vectors

        return f"{len(load_starter_vectors())} vectors"
