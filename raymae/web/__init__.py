"""A folder of sweeps as a small, read-only web page: `raymae serve`."""
