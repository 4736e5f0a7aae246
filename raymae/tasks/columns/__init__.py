"""Tables as tokens, one for each column: what the tasks on tables share."""
