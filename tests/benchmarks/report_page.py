"""A report of 5,000 trials x 50 reports: how long to make it, how big it is, how fast it opens; and a query over them.

    python -m tests.benchmarks.report_page [trials] [reports]

Opening is measured in headless Chromium, from the start of the navigation until the page's own script has filled the
table of trials and until the figures in view are drawn; without a Chromium it is left out.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from raymae.results.report.report import write_report
from raymae.results.views import query
from raymae.search.decide.importance import importances
from tests.benchmarks.made_sweep import make_sweep

SQL = "SELECT arm, phase, count(*) AS n, min(val_mse) AS best FROM reports GROUP BY ALL ORDER BY ALL"


def opened(page: Path) -> dict[str, float]:
    """Seconds until the page is there, the median of three."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    found = []
    try:
        browser.get("about:blank")
        for _ in range(3):
            started = time.monotonic()
            browser.get(page.as_uri())
            while not browser.execute_script("return document.querySelector('#plot-differences .main-svg') !== null"):
                time.sleep(0.01)
            drawn = time.monotonic() - started
            ready = browser.execute_script("return performance.getEntriesByName('ready')[0].startTime") / 1000
            found.append((drawn, ready))
            browser.get("about:blank")
    finally:
        browser.quit()
    drawn, ready = sorted(found)[1]
    return {"open_s": round(drawn, 2), "table_s": round(ready, 2)}


def _seconds(root: Path) -> tuple[float, float]:
    """Wall and processor seconds of one query; on a busy machine they differ."""
    wall, processor = time.monotonic(), time.process_time()
    query(root, SQL)
    return time.monotonic() - wall, time.process_time() - processor


def main(num_trials: int = 5000, num_reports: int = 50) -> dict[str, Any]:
    """Measure once."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "made"
        store = make_sweep(root, num_trials, num_reports)
        started = time.monotonic()
        importance = importances(store)
        importance_s = time.monotonic() - started
        started = time.monotonic()
        html, _ = write_report(store, importance=importance)
        made_s = time.monotonic() - started
        query(root, "SELECT 1")  # the libraries are imported once
        query_s, query_cpu_s = sorted(_seconds(root) for _ in range(5))[2]
        found = {
            "trials": num_trials, "reports": store.table("reports").num_rows, "importance_s": round(importance_s, 2),
            "made_s": round(made_s, 2), "page_mb": round(Path(html).stat().st_size / 1e6, 2),
            "query_s": round(query_s, 3), "query_cpu_s": round(query_cpu_s, 3),
        }
        if shutil.which("chromium") and shutil.which("chromedriver"):
            found |= opened(Path(html))
    return found


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:]))))
