from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dynamicrafter.jobs.checks import check_jobs
from dynamicrafter.jobs.job import CheckedJob
from quick_jobs import MODEL, job


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def check(tmp_path, picture):
    """Checked jobs by key, each with what it has beside the usual."""

    def check(**jobs: dict) -> list[CheckedJob]:
        listed = [job(key, **{"pictures": (picture,)} | own) for key, own in jobs.items()]
        return check_jobs(tmp_path / "list", listed, tmp_path / "out", model=MODEL)[0]

    return check
