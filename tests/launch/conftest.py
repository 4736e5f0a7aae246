"""The sweeps that a spot cluster runs are those of the search's tests."""

from tests.search.conftest import small

__all__ = ["small"]
