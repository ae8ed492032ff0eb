from django.apps import AppConfig


class DatasetsConfig(AppConfig):
    name = "steering.datasets"
    label = "datasets"

    def load_starters(self) -> str:
        from steering.datasets.starter_catalog import load_starter_datasets

        return f"{len(load_starter_datasets())} datasets"
