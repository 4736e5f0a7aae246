"""What a sweep may spend, and what it has spent: wall time, GPU hours, dollars."""

from __future__ import annotations

from raymae.spec.sweep import BudgetSpec, ResourceSpec


class Budget:
    """Limits on a sweep, all of which must hold. Every quantity is turned into seconds of the whole sweep.

    Args:
        spec: The limits.
        resources: What one trial gets.
        slots: Trials at once.
        nodes: Machines that are paid for.
    """

    def __init__(self, spec: BudgetSpec, resources: ResourceSpec, *, slots: int, nodes: int = 1) -> None:
        self.spec, self.slots, self.nodes = spec, slots, nodes
        self.gpus_per_trial = resources.workers * resources.gpus_per_worker

    def seconds_left(self, *, elapsed_s: float, trial_s: float) -> float | None:
        """Seconds the sweep may still run with all slots busy; None without a limit.

        Args:
            elapsed_s: Wall time of the sweep so far.
            trial_s: Wall time of all its trials so far, added up.
        """
        limits = []
        if self.spec.wall_minutes is not None:
            limits.append(60 * self.spec.wall_minutes - elapsed_s)
        if self.spec.dollars is not None and self.spec.price_per_node_hour is not None:
            limits.append(3600 * self.spec.dollars / (self.spec.price_per_node_hour * self.nodes) - elapsed_s)
        if self.spec.gpu_hours is not None and self.gpus_per_trial:
            left = 3600 * self.spec.gpu_hours - trial_s * self.gpus_per_trial
            limits.append(left / (self.slots * self.gpus_per_trial))
        return min(limits) if limits else None
