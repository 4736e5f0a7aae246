"""Writes trials of five reports each, printing what is on storage, until someone kills it."""

from __future__ import annotations

import itertools
import sys

from tiny_task import DATA, ENVIRONMENT, report, tiny_schema, tiny_spec, trial

from raymae.results import Store

store = Store.create(sys.argv[1], tiny_spec(), tiny_schema(), environment=ENVIRONMENT, data=DATA, flush_s=0.0)
for number in itertools.count(int(sys.argv[2])):
    store.write_config(f"t{number}", {"number": number})
    for step in range(5):
        store.add_report(report(f"t{number}", step))
        print("report", f"t{number}", step, flush=True)
    store.add_trial(trial(f"t{number}"))
    print("trial", f"t{number}", 0, flush=True)
    if number % 3 == 2:
        store.compact()
