from django.urls import path

from steering.retrieval import collection_views, views

app_name = "retrieval"
urlpatterns = [
    path("", views.home, name="home"),
    path("new/", views.ask, name="ask"),
    path("collections/new/", collection_views.collection_new, name="collection-new"),
    path("collections/<uuid:pk>/", collection_views.collection, name="collection"),
    path("collections/<uuid:pk>/change/", collection_views.collection_change, name="collection-change"),
    path("collections/<uuid:pk>/share/", collection_views.collection_share, name="collection-share"),
    path("collections/<uuid:pk>/delete/", collection_views.collection_delete, name="collection-delete"),
    path("documents/<uuid:pk>/", collection_views.document, name="document"),
    path("documents/<uuid:pk>/delete/", collection_views.document_delete, name="document-delete"),
    path("<uuid:pk>/", views.question, name="question"),
    path("<uuid:pk>/again/", views.again, name="again"),
    path("<uuid:pk>/question.json", views.export, name="export"),
    path("<uuid:pk>/delete/", views.delete, name="delete"),
]
