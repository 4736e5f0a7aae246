"""Where data sets are: on this machine, on an object store, or to be downloaded."""
