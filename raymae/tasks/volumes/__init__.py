"""Segmentation of medical volumes."""

from raymae.tasks.volumes.task import Volumes

__all__ = ["Volumes"]
