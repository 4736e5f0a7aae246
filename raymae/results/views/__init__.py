"""Answers in other forms: terminal tables, SQL, TensorBoard, CSV, comparisons of sweeps, live progress."""
