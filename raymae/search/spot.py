"""The watcher's former place, which commands of clusters that are up still name; see `raymae.launch.spot`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("raymae.launch.spot", run_name="__main__")
