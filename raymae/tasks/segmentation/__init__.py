"""Semantic segmentation of photographs."""

from raymae.tasks.segmentation.task import Segmentation

__all__ = ["Segmentation"]
