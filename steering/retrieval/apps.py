from django.apps import AppConfig


class RetrievalConfig(AppConfig):
    name = "steering.retrieval"
    label = "retrieval"

    def ready(self) -> None:
        from steering.retrieval import asking  # noqa: F401  its jobs' recipe, and the keeping of their results
        from steering.retrieval.indexing import forget_deleted  # noqa: F401  indices of collections that go
