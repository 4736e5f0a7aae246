"""Between a Tune step and the loop's next report."""

from __future__ import annotations

from typing import Any

from ray import tune

from raymae.search.engine.workers import GroupOptions, WorkerGroup


class WarmTrial(tune.Trainable):
    """A Tune trainable that owns one warm worker group and hands it one trial after another (`reuse_actors=True`).

    Every result carries the message of the loop's report under `message`, and what schedulers look at: `phase`,
    `epoch` (of fine-tuning), `report` (its number) and `objective` (the best so far).
    """

    def setup(self, config: dict[str, Any], options: GroupOptions | None = None) -> None:
        """Start the group; its first job waits for it at the hub."""
        assert options is not None
        self._group = WorkerGroup(self.trial_id, options)
        self._group.assign(config["job"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Hand the group its next trial."""
        self._group.assign(new_config["job"])
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next report."""
        message = self._group.collect()
        metric = self.config["job"]["objective"]
        tuning = message.get("phase") == "finetune"
        return {
            "message": message, "phase": message.get("phase"), "epoch": message["epoch"] if tuning else 0,
            "report": message.get("step", 0),
            "objective": message["best"].get(metric) if tuning else None, "done": message["final"],
        }

    def cleanup(self) -> None:
        """End the group."""
        self._group.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: checkpoints are the loop's, and the results folder is the truth."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing, as above."""
