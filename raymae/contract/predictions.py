"""A kept network says the same by its card alone: without its training data, from state that was JSON."""

from __future__ import annotations

import json

import torch

from raymae.contract.networks import FirstExamples
from raymae.contract.subject import Check, Subject, require


def kept_networks_are_known_by_their_card(subject: Subject, arm: str) -> None:
    """A kept network is built from its configuration and state, as JSON, and says what the trained one says."""
    task = subject.make(arm)
    if task.predictor is None:
        return
    model, source = task.build().eval(), FirstExamples(task.load("val"), 3)
    state = json.loads(json.dumps(task.kept_state(model), allow_nan=False))
    built = task.predictor(type(task.config).from_json(json.loads(json.dumps(task.config.to_json()))), state,
                           torch.device("cpu")).build()
    shapes, kept = ({name: tuple(value.shape) for name, value in network.state_dict().items()}
                    for network in (model, built))
    odd = next((name for name in (*shapes, *kept) if shapes.get(name) != kept.get(name)), None)
    require(odd is None, f"{odd} is {shapes.get(odd or '')} in the network that is trained, and {kept.get(odd or '')} "
                         "in the one that the predictor builds (None: not there)")
    built.eval().load_state_dict(model.state_dict())
    batch = source.batch(torch.arange(len(source)), None)
    with torch.no_grad():
        ours, theirs = task.predict(model, batch), task.predict(built, batch)
    require(torch.equal(ours.nan_to_num(), theirs.nan_to_num()),
            "the network that the predictor builds predicts something else with the same weights")


CHECKS = (Check(kept_networks_are_known_by_their_card, "pretrained", "trained"),)
