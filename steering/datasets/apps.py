from django.apps import AppConfig


class DatasetsConfig(AppConfig):
    name = "steering.datasets"
    label = "datasets"

    def ready(self) -> None:
        from steering.datasets import asking  # noqa: F401  says how the model writes pairs, and what is kept of them

    def load_starters(self) -> str:
        from steering.datasets.starter_catalog import load_starter_datasets

        return f"{len(load_starter_datasets())} datasets"
