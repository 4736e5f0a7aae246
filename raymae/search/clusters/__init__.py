"""Cluster files: checked offline against Ray's schema and our rules, priced, and, on AWS, prepared for."""
