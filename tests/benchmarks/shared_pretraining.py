"""What it saves to share encoders between the trials of a search: core-seconds with sharing over those without.

    python -m tests.benchmarks.shared_pretraining [--trials 8] [--finetunes-per-encoder 4]

Runs the search of the classification sweep's `mae` arm twice in one go, at an equal number of fine-tunings to their
end (real data if $RAYMAE_DATA has it): once with a pretraining for each, once with one for several. Then a label curve
of four fractions whose sweeps share a shelf of encoders: its pretraining seconds over those of one fraction. The last
line is one JSON object. On a machine with other work the ratio is still that of two runs beside it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from raymae.results.store.store import Store

ROOT = Path(__file__).parents[2]
FRACTIONS = (0.03, 0.1, 0.3, 1.0)


def run(folder: str, name: str, *overrides: str) -> dict[str, float]:
    """Run the `mae` arm of the classification sweep; returns the core-seconds of each phase."""
    from raymae.search.plan import make_plan
    from raymae.search.run import run_sweep
    from raymae.spec.load import load_sweep
    from raymae.tasks import schema_of

    always = [f"results={folder}", f"name={name}", "arms=[mae]", "replicates=0", "search.scheduler=none",
              "budget.wall_minutes=null", "fair.by=epochs",
              "space.patch_size={choice: [8]}"]  # it decides what a trial costs, and is not to be drawn by chance
    spec = load_sweep(ROOT / "sweeps" / "classification_mask.yaml", [*always, *overrides], schema_of=schema_of)
    run_sweep(make_plan(spec))
    trials = Store.open(Store.root_of(spec)).trials()
    is_pretraining = trials["stage"] == "pretrain"
    return {"pretrain_s": float(trials[is_pretraining]["wall_s"].sum()),
            "finetune_s": float(trials[~is_pretraining]["wall_s"].sum()),
            "encoders": int(is_pretraining.sum()), "trials": int((~is_pretraining).sum()),
            "least_skill": float(trials.loc[is_pretraining, "pretext_skill"].min()),
            "best_skill": float(trials.loc[is_pretraining, "pretext_skill"].max())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=8, help="fine-tunings of each search")
    parser.add_argument("--finetunes-per-encoder", type=int, default=4)
    parser.add_argument("--size", default="laptop", help="the sweep's; debug for a try")
    arguments = parser.parse_args()
    size, number = f"size={arguments.size}", f"search.num_trials={arguments.trials}"
    result: dict[str, object] = {"benchmark": "shared_pretraining"}
    with tempfile.TemporaryDirectory() as folder:
        spent = {}
        for name, each in (("alone", 1), ("shared", arguments.finetunes_per_encoder)):
            result[name] = found = run(folder, name, size, number, f"search.finetunes_per_encoder={each}")
            spent[name] = found["pretrain_s"] + found["finetune_s"]
            print(f"{name}: {found['encoders']} encoders for {found['trials']} fine-tunings, {found['pretrain_s']:.0f} "
                  f"+ {found['finetune_s']:.0f} core-seconds, pretext_skill {found['least_skill']:.2f} to "
                  f"{found['best_skill']:.2f}")
        result["ratio"] = spent["shared"] / spent["alone"]
        print(f"with {arguments.finetunes_per_encoder} fine-tunings per encoder {result['ratio']:.2f} of the "
              "core-seconds without sharing")
        curve = {fraction: run(folder, f"labels-{fraction}", size, "search.num_trials=1", "training.epochs=4",
                               f"encoders={folder}/shelf", f"training.label_fraction={fraction}")
                 for fraction in FRACTIONS}
        first, *others = (found["pretrain_s"] for found in curve.values())
        result["curve"] = (first + sum(others)) / first
        print(f"a curve of {len(FRACTIONS)} label fractions pretrains {result['curve']:.2f} times as long as one: "
              f"{first:.0f} s")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
