"""Benchmarks: scripts that print ratios against a peer in the same run, and one JSON object as their last line."""
