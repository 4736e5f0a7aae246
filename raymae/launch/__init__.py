"""Machines for a sweep: cluster files, prices, clouds prepared, jobs submitted, spot notices. Runs no trial."""
