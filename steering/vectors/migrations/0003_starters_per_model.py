from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("vectors", "0002_drafts")]

    operations = [
        migrations.RemoveConstraint(model_name="vector", name="one_starter_vector_per_slug"),
        migrations.AddConstraint(
            model_name="vector",
            constraint=models.UniqueConstraint(
                condition=models.Q(("owner__isnull", True)),
                fields=("slug", "model_id"),
                name="one_starter_vector_per_slug_and_model",
            ),
        ),
    ]
