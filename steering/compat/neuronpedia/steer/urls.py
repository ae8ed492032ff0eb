from django.urls import path

from steering.compat.neuronpedia.steer import views

urlpatterns = [
    path("completion", views.completion, name="steer"),
    path("completion-chat", views.completion_chat, name="steer-chat"),
]
