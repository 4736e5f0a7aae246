"""What is left of a sweep, in use: kept models, loaded from its results folder."""
