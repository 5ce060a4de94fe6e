"""Comparisons are about numbers and files; their figures are drawn in other tests."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def without_figures(undrawn):
    pass
