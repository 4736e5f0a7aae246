"""Run the trial on standard input to its end in processes that are killed after their first report.

Each resumes from the checkpoint of the one before it, prints its report, saves, and gets SIGKILL.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path

import torch

from raymae.spec import TrialConfig
from raymae.tasks import task_class
from raymae.train import run_trial


def run_until_first_report(config: TrialConfig, path: Path) -> None:
    torch.manual_seed(os.getpid())
    for report in run_trial(config, resume=path if path.exists() else None):
        report.save(path)
        print(json.dumps({
            "phase": report.phase, "epoch": report.epoch, "step": report.step, "metrics": report.metrics,
            "best": report.best, "num_parameters": report.num_parameters, "final": report.final,
            "pretext": report.pretext, "pid": os.getpid(),
        }), flush=True)
        if report.final:
            return
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    trial = TrialConfig.from_json(json.load(sys.stdin))
    task_class(trial.task)(trial, torch.device("cpu")).build()  # what is slow to import is imported once
    killed = True
    while killed:
        child = os.fork()
        if not child:
            try:
                run_until_first_report(trial, Path(sys.argv[1]))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status)
    sys.exit(os.waitstatus_to_exitcode(status))
