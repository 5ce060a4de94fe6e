"""A generated table, small."""

import pytest

from invlearn.rows.example import hospitals


@pytest.fixture(scope="session")
def frame():
    return hospitals(rows=60)
