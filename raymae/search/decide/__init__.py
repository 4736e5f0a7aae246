"""What runs next, and what is known about what ran. Imports Optuna, never Ray."""
