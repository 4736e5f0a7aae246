"""What a pretraining leaves to the fine-tunings that start from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from raymae.errors import EncoderError
from raymae.tasks.base import Task


@dataclass(frozen=True)
class Encoder:
    """A pretrained network.

    Attributes:
        weights: Of the whole masked autoencoder, since what is fine-tuned may take its decoder too.
        pretext: How it did on validation (see `ReportData.pretext`).
        epochs: Epochs it was pretrained.
        seconds: Seconds they took.
    """

    weights: Mapping[str, Tensor]
    pretext: Mapping[str, float]
    epochs: int
    seconds: float

    def model(self, task: Task) -> nn.Module:
        """The masked autoencoder under a trial's configuration, on the task's device.

        Raises:
            EncoderError: The weights are of another network.
        """
        pretraining = task.pretraining()
        assert pretraining is not None, f"the arm {task.config.arm} does not pretrain"
        model: nn.Module = pretraining.build().to(task.device)
        try:
            model.load_state_dict(dict(self.weights))
        except RuntimeError as error:  # torch's name for other tensors than the network's
            raise EncoderError(f"the encoder is of another network ({str(error).splitlines()[0]})") from error
        return model
