"""The product's settings over a data folder that is thrown away, so that no test touches a person's data."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

_folder = tempfile.mkdtemp(prefix="steerboard-tests-")
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
os.environ["STEERBOARD_DATA"] = _folder
os.environ["DEBUG"] = "False"

from webapp.settings import *  # noqa: E402, F403
from webapp.settings import DATA_DIR, DATABASES  # noqa: E402

# A file, as in the product: runs and jobs write from other threads, which an in-memory database would lock out.
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["TEST"] = {"NAME": DATA_DIR / "test.sqlite3"}
