"""Print how many points an experiment has, how many different ones, and how many answers there are to them."""

from __future__ import annotations

import os
import sys

os.environ["DJANGO_SETTINGS_MODULE"] = "webapp.settings"

import django

django.setup()

from steering.experiments.models import Measurement, Point

if __name__ == "__main__":
    points = list(Point.objects.filter(experiment=sys.argv[1]).values_list("group", "place", "measurement"))
    answers = Measurement.objects.filter(points__experiment=sys.argv[1]).distinct()
    print(len(points), len({point[:2] for point in points}), answers.count())
