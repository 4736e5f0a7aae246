"""A running sweep seen from outside: the terminal, `state.json`, and Ray's metrics."""
