from django.urls import path, re_path

from steering.features import feature_views, reading_views, training_views, views

app_name = "features"
SOURCE = r"(?P<source>\d+-[^/]+)"  # every id begins with a layer, so that no page's name is taken for one
urlpatterns = [
    path("", views.home, name="home"),
    path("read/", reading_views.read, name="read"),
    path("readings/<uuid:pk>/", reading_views.reading, name="reading"),
    path("readings/<uuid:pk>/data.json", reading_views.reading_json, name="reading-data"),
    path("readings/<uuid:pk>/more.json", reading_views.reading_more, name="reading-more"),
    path("search/", views.search, name="search"),
    path("search/example/", reading_views.search_by_example, name="example"),
    path("searches/<uuid:pk>/", reading_views.found, name="found"),
    path("go/", views.go, name="go"),
    path("train/", training_views.train, name="train"),
    path("train/estimate.json", training_views.estimate, name="train-estimate"),
    path("train/<uuid:pk>/", training_views.training, name="training"),
    path("train/<uuid:pk>/go-on/", training_views.go_on, name="train-on"),
    path("library.json", views.library_json, name="library"),
    re_path(rf"^{SOURCE}/$", views.source, name="source"),
    re_path(rf"^{SOURCE}/index/$", views.index, name="index"),
    re_path(rf"^{SOURCE}/(?P<index>\d{{1,9}})/$", feature_views.feature, name="feature"),
    re_path(rf"^{SOURCE}/(?P<index>\d{{1,9}})/facts\.json$", feature_views.feature_json, name="facts"),
    re_path(rf"^{SOURCE}/(?P<index>\d{{1,9}})/label/$", feature_views.label, name="label"),
    re_path(rf"^{SOURCE}/(?P<index>\d{{1,9}})/propose/$", feature_views.propose, name="propose"),
]
