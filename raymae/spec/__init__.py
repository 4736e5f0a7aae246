"""What a user writes: sweep files, spaces, trials. Imports neither torch nor ray."""

from raymae.spec.load import json_schema, load_sweep, parse_sweep
from raymae.spec.resolve import ArmPlan, arm_plan, arm_plans, trial_config
from raymae.spec.sweep import DataSpec, SweepSpec
from raymae.spec.task import Arm, Objective, TaskSchema, TrainingParams, param
from raymae.spec.trial import TrialConfig, TrialData

__all__ = [
    "Arm", "ArmPlan", "DataSpec", "Objective", "SweepSpec", "TaskSchema", "TrainingParams", "TrialConfig", "TrialData",
    "arm_plan", "arm_plans", "json_schema", "load_sweep", "param", "parse_sweep", "trial_config",
]
