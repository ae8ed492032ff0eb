"""`python -m benchmarks.written` prints what the database says that each run wrote, one JSON line per run.

A line is {"run", "state", "tokens": [[seq, token id], ...]}.
"""

from __future__ import annotations

import json
import os


def main() -> None:
    import django

    os.environ["DJANGO_SETTINGS_MODULE"] = "webapp.settings"
    django.setup()
    from steering.playground.models import LaneOutput

    for row in LaneOutput.objects.select_related("run").iterator(chunk_size=50):
        tokens = [[token["seq"], token["id"]] for token in row.tokens]
        print(json.dumps({"run": str(row.run_id), "state": row.run.state, "tokens": tokens}, separators=(",", ":")))


if __name__ == "__main__":
    main()
