from django.apps import AppConfig


class RatingConfig(AppConfig):
    name = "steering.rating"
    label = "rating"
