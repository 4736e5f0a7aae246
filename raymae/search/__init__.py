"""The search: `decide` says what runs next, `engine` runs it on Ray, `live` shows it, `run` is the way through."""
