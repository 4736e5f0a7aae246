"""The answer: which arm is better, by how much, and how sure that is."""
