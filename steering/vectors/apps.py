from django.apps import AppConfig


class VectorsConfig(AppConfig):
    name = "steering.vectors"
    label = "vectors"

    def ready(self) -> None:
        from steering.vectors import builds, combining, drafts  # noqa: F401  keep their jobs' results

    def load_starters(self) -> str:
        from inference.errors import InferenceError
        from steering.vectors.starters import load_starter_vectors

        try:
            return f"{len(load_starter_vectors())} vectors"
        except InferenceError as error:  # the pages must come up and say it too; the next start tries again
            return f"no starter vectors ({error.message})"
