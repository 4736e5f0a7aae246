"""The report's page: its template, its looks, its script."""
