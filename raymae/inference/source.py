"""Where an arm's weights come from: a sweep's results folder, a file of its encoders, a folder of timm's or Hugging
Face's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymae.errors import EncoderError, RayMAEError, one_line, unknown
from raymae.inference.encoders import GIVEN, Card, EncoderShelf
from raymae.inference.foreign import CONFIG, file_in, read_config, read_weights, weights_of
from raymae.models.given import Given
from raymae.models.vit import Vit
from raymae.models.vit_hf import from_hf
from raymae.models.vit_timm import from_timm
from raymae.results.store import layout
from raymae.results.store.columns import last_attempts
from raymae.results.store.folder import Folder
from raymae.results.store.store import Store
from raymae.spec.trial import TrialConfig
from raymae.spec.uri import is_uri
from raymae.tasks import task_class

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

    from raymae.models.tokens import TokenGrid


def read_given(where: str) -> Given:
    """Read the weights that an arm starts from.

    Args:
        where: A results folder (its pretrained arm's encoder), a file in a folder of encoders, a folder that timm or
            Hugging Face can load, on disk; a results folder may be a URI.

    Raises:
        EncoderError: There is nothing of the kind, or it is damaged or hostile; says what is wrong with it.
    """
    if is_uri(where):
        return encoder_of_sweep(where)[0]
    path = Path(where).expanduser()
    if path.is_dir():
        if file_in(path, layout.SWEEP) is not None:
            return encoder_of_sweep(where)[0]
        return _of_folder(path)
    if not path.exists():
        raise EncoderError(f"{where}: there is no such file or folder to start from")
    return _of_file(path)


def encoder_of_sweep(root: str, arm: str | None = None) -> tuple[Given, Card, str]:
    """The encoder of an arm of a sweep: that of its replicate which is best on validation, or else of its best trial.

    Args:
        root: The results folder, a path or a URI.
        arm: A pretrained arm; the first that the sweep has by default.

    Returns:
        The encoder, its card, and the arm.

    Raises:
        EncoderError: There is none.
    """
    try:
        store = Store.open(root)
        arms = store.manifest.task.arms
        pretrained = [name for name in store.spec().arms if arms[name].kind == "pretrained"]
        if arm is None:
            primary = store.manifest.task.primary
            arm = primary[0] if primary and primary[0] in pretrained else next(iter(pretrained), None)
        if arm not in pretrained:
            message = unknown("pretrained arm", arm, pretrained) if arm else "no arm of the sweep pretrains"
            raise EncoderError(f"{root}: {message}")
        encoder_id = _best_encoder(store.trials(), arm, store.objective().val, store.objective().mode)
        shelf = EncoderShelf(store.spec().encoders or store.uri(layout.ENCODERS))
    except EncoderError:
        raise
    except RayMAEError as error:
        raise EncoderError(str(error)) from None
    if encoder_id is None:
        raise EncoderError(f"{root}: no trial of the arm {arm} has completed with an encoder on record")
    return (*_on_shelf(shelf, encoder_id, root), arm)


def _best_encoder(trials: pd.DataFrame, arm: str, column: str, mode: str) -> str | None:
    """The encoder of an arm's best replicate, or of its best trial where there is none."""
    if "encoder_id" not in trials or column not in trials:
        return None
    rows = last_attempts(trials)
    rows = rows[(rows["arm"] == arm) & (rows["status"] == "completed") & (rows["stage"] != "pretrain")
                & rows["encoder_id"].notna() & rows[column].notna()]
    rows = rows[rows["stage"] == "replicate"] if (rows["stage"] == "replicate").any() else rows
    if rows.empty:
        return None
    best = rows.sort_values([column, "trial_id"], ascending=[mode == "min", True]).iloc[0]
    return str(best["encoder_id"])


def _on_shelf(shelf: EncoderShelf, encoder_id: str, source: str) -> tuple[Given, Card]:
    if not encoder_id.isalnum():  # a name, and no path
        raise EncoderError(f"{source}: {encoder_id!r} is no name of an encoder")
    encoder, card = shelf.load(encoder_id), shelf.card(encoder_id)
    assert card is not None, "it has just been read"
    return _ours(encoder.weights, card, f"{source} ({encoder_id})"), card


def _ours(weights: Mapping[str, Any], card: Card, source: str) -> Given:
    """Weights of an encoder of ours, as a vision transformer where its task says that it is one."""
    grid = _grid(card, source)
    if grid is None:
        return Given(weights, None, source)
    params = card.config["params"]
    heads, decoder_heads = params["encoder_heads"], params["decoder_heads"]
    return Given.of_vit(Vit(weights, grid, heads, decoder_heads), source)


def _grid(card: Card, source: str) -> TokenGrid | None:
    try:
        config = TrialConfig.from_json(card.config)
        kind = task_class(config.task)
        params = kind.schema.params.model_construct().model_dump() | dict(config.params)
        return kind.image_grid(params)
    except Exception as error:  # whatever a card that somebody wrote leads to
        raise EncoderError(f"{source}: its card is not of a task of this version: {one_line(error)}") from None


def _of_file(path: Path) -> Given:
    """An encoder on a shelf: a file of weights with its card beside it."""
    if path.suffix != ".safetensors":
        read_weights(path)  # says why not
        raise EncoderError(f"{path}: must be a safetensors file")
    shelf, name = EncoderShelf(str(path.parent)), path.stem
    card = shelf.card(name)
    if card is None:
        raise EncoderError(f"{path}: there is no card {name}.json beside it that says what network it is of; name a "
                           "results folder, a file in its `encoders`, or a folder with config.json and "
                           "model.safetensors")
    read_weights(path)
    if name.startswith(GIVEN) and card.source:
        return shelf.given(card.sha256)
    return _on_shelf(shelf, name, str(path))[0]


def _of_folder(folder: Path) -> Given:
    path = file_in(folder, CONFIG)
    if path is None:
        cards = [name for name in sorted(Folder(str(folder)).names()) if name.endswith(".safetensors")]
        if len(cards) == 1 and file_in(folder, cards[0]) is not None:
            return _of_file(folder / cards[0])
        weights_of(folder)  # says why not, where it is of another kind
        raise EncoderError(f"{folder}: holds no sweep.json, no config.json of timm's or Hugging Face's, and "
                           f"{len(cards) or 'no'} encoders")
    config, weights = read_config(path), weights_of(folder)
    try:
        if "architecture" in config:
            vit = from_timm(config, weights)
        elif "model_type" in config:
            vit = from_hf(config, weights)
        else:
            raise EncoderError("names neither an `architecture`, as timm's do, nor a `model_type`, as Hugging Face's")
    except EncoderError as error:
        raise EncoderError(f"{path}: {error}") from None
    except Exception as error:  # a config may hold anything
        raise EncoderError(f"{path}: not a config of timm's or Hugging Face's: {one_line(error)}") from None
    return Given.of_vit(vit, str(folder))
