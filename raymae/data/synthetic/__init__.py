"""Generated data in the layout of the real one, for tests and for machines without it; never passed off as real."""
