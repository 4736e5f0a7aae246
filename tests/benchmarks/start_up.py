"""From the command to the first trial's end: seconds, processor seconds of all processes, and how many there are.

    python -m tests.benchmarks.start_up [--repeats 5]

The peer is a plain Tune function with torch, of trials as trivial, on an embedded Ray as well: what starts without Ray
Train, without a store and without a progress display. Both in turns in one run, medians. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics

from tests.benchmarks.trial_overhead import measure

WHAT = ("startup_s", "startup_cpu_s", "startup_processes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    found: dict[str, list[dict[str, float]]] = {"engine": [], "plain": []}
    for _ in range(repeats):
        for name, runs in found.items():
            runs.append(measure(name, 2, 1))
            print(name, {what: round(runs[-1][what], 2) for what in WHAT}, flush=True)
    median = {name: {what: statistics.median(run[what] for run in runs) for what in WHAT}
              for name, runs in found.items()}
    ratio = {what: median["engine"][what] / median["plain"][what] for what in WHAT}
    for what in WHAT:
        print(f"{what:18} {median['engine'][what]:6.1f}  plain Tune {median['plain'][what]:6.1f}  "
              f"ratio {ratio[what]:.2f}")
    print(json.dumps({"benchmark": "start_up", "repeats": repeats, "load": os.getloadavg()[0], **median["engine"],
                      "plain": median["plain"], "ratio": ratio}))


if __name__ == "__main__":
    main()
