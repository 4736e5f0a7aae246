"""Windows of other series that pretraining sees beside those of the series that is forecast: one channel each.

Every series is scaled by itself. A window's channel is drawn anew whenever it is seen, as with `pretrain_channels:
all`.

Shape suffixes: B batch, C channels of one source, L lookback steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from raymae.data.find.locate import Located
from raymae.data.series import Series, read_all_series
from raymae.data.series_corpora import in_step, scored_times, without_scored
from raymae.data.shelf import WORKER
from raymae.data.synthetic.series import synthetic_series
from raymae.errors import DataError
from raymae.spec.sweep import Reading
from raymae.spec.trial import TrialData
from raymae.tasks.base import Batch, Units, joined
from raymae.tasks.forecasting.windows import ScaledSeries, Windows


@dataclass(frozen=True, eq=False)
class SeriesCorpus:
    """A corpus: its series, where windows of them start, and what has to be said of it."""

    name: str
    data: ScaledSeries
    starts: np.ndarray
    note: str

    def units(self) -> Units:
        """Windows by the time of the first step after them, and the series that they are of."""
        names = tuple(f"{self.name}/{name}" for name in self.data.names(self.starts))
        parts = self.data.part_of(self.starts)
        return Units(names, tuple(f"{self.name}/{self.data.parts[part].name}" for part in parts.tolist()))


class CorpusWindows:
    """Windows of several sources, the series that is forecast among them or not, each of a single channel.

    Args:
        own: Windows of the series that is forecast; None without.
        data: That series.
        corpora: The others, at least one.
        lookback: L.
    """

    def __init__(
        self, own: Windows | None, data: ScaledSeries, corpora: Sequence[SeriesCorpus], lookback: int
    ) -> None:
        self.own, self.corpora, self.lookback = own, corpora, lookback
        self.observed = data.observed_CT is not None  # then networks see which cells are missing
        counts = [0 if own is None else len(own), *(len(corpus.starts) for corpus in corpora)]
        self.ends = torch.tensor(counts).cumsum(0)
        channels = [len(one.values_CT) for one in (data, *(corpus.data for corpus in corpora))]
        self.first_channels = np.cumsum(channels).tolist()
        self.starts = [torch.as_tensor(corpus.starts, device=corpus.data.device) for corpus in corpora]

    def __len__(self) -> int:
        return int(self.ends[-1])

    def batch(self, index_B: Tensor, generator: Generator | None) -> Batch:
        """As `Windows.batch` makes it, with the own channel alone and without what is forecast."""
        index_B = index_B.cpu()
        source_B = torch.bucketize(index_B, self.ends, right=True)
        parts, places = [], []
        for source in source_B.unique().tolist():
            place = (source_B == source).nonzero()[:, 0]
            local_B = index_B[place] - (int(self.ends[source - 1]) if source else 0)
            parts.append(self._of_own(local_B, generator) if source == 0 else
                         self._of_corpus(source - 1, local_B, generator))
            places.append(place)
        back_B = torch.cat(places).argsort().to(parts[0]["window"].device)
        return {key: torch.cat([part[key] for part in parts])[back_B] for key in parts[0]}

    def _of_own(self, index_B: Tensor, generator: Generator | None) -> Batch:
        assert self.own is not None
        batch = self.own.batch(index_B, generator)
        return {key: batch[key][:, :1] if key in ("window", "observed", "before") else batch[key]
                for key in ("window", "channel", "time", "observed", "before") if key in batch}

    def _of_corpus(self, number: int, index_B: Tensor, generator: Generator | None) -> Batch:
        data = self.corpora[number].data
        start_B = self.starts[number][index_B.to(data.device)]
        channel_B = torch.zeros_like(start_B)
        if generator is not None:
            channel_B = torch.randint(len(data.values_CT), (len(start_B),), generator=generator,
                                      device=generator.device).to(data.device)
        steps_BL = start_B[:, None] - self.lookback + torch.arange(self.lookback, device=data.device)
        window_BL = data.values_CT[channel_B[:, None], steps_BL]
        batch = {"window": window_BL[:, None], "channel": channel_B + self.first_channels[number],
                 "time": data.time_FT[:, steps_BL].transpose(0, 1)}
        if self.observed:
            known_BL = torch.ones_like(window_BL, dtype=torch.bool)
            if data.observed_CT is not None:
                known_BL = data.observed_CT[channel_B[:, None], steps_BL]
            batch |= {"observed": known_BL[:, None], "before": data.before_CT[channel_B, steps_BL[:, 0]][:, None]}
        return batch


def units_of(own: Units | None, corpora: Sequence[SeriesCorpus]) -> Units:
    """Their windows by name."""
    units = joined([*([own] if own is not None else []), *(corpus.units() for corpus in corpora)])
    return units._replace(in_time=own is not None and own.in_time)


def read_corpora(
    found: Sequence[Located], where: TrialData, path: str | None, params: Any, data: ScaledSeries
) -> tuple[SeriesCorpus, ...]:
    """Every corpus, read once per process.

    Args:
        found: Where they are.
        where: How they and the series that is forecast are read.
        path: The file of that; None where it is generated.
        params: `target`, `date_column`, `protocol`, `lookback` and `covariates`.
        data: It.

    Raises:
        DataError: One is malformed, or has steps that cannot be those of the series that is forecast; nothing is left
            of all; or networks see all channels of that at once.
    """
    p = params
    if p.covariates == "all" and len(data.values_CT) > 1:
        raise DataError(f"pretraining.data: with covariates=all the network sees the {len(data.values_CT)} channels of "
                        f"{data.name} at once, which other series do not have; set settings.covariates to time or none")
    own = path, where.where.reading(), p.target, p.date_column, p.protocol, data.horizon
    missing = data.observed_CT is not None
    corpora = tuple(_read(one.name, str(place.path), one.reading(), *own, p.lookback, missing, data.device)
                    for place, one in zip(found, where.pretraining.data, strict=True))
    if not where.pretraining.own and not sum(len(corpus.starts) for corpus in corpora):
        raise DataError(f"{data.name}: nothing is left to pretrain on: " + " and ".join(one.note for one in corpora))
    return corpora


@WORKER.keeps(8)
def _target(path: str | None, target: str, date_column: str, reading: Reading) -> Sequence[Series]:
    if path is None:
        return (synthetic_series(target=target),)
    return read_all_series(Path(path), target=target, date_column=date_column, reading=reading)


@WORKER.keeps(8)
def _read(
    name: str, file: str, reading: Reading, path: str | None, own_reading: Reading, target: str, date_column: str,
    protocol: Any, horizon: int, lookback: int, missing: bool, device: torch.device,
) -> SeriesCorpus:
    own = _target(path, target, date_column, own_reading)
    scored = scored_times(own, protocol, horizon, path or "synthetic")
    if not missing and reading.fill is None:  # networks of this series do not see what is missing
        reading = reading.model_copy(update={"fill": "interpolate"})
    found = [in_step(one, own[0]) for one in read_all_series(Path(file), target="", reading=reading)]
    pieces: list[Series] = []
    num_out = 0
    for one in found:
        left, out = without_scored(one, scored, lookback + 1)
        pieces += [replace(piece, name=" ".join(filter(None, [one.name, str(piece.times[0])]))) for piece in left] \
            if len(left) > 1 else left
        num_out += out
    rows = sum(len(one.times) for one in found)
    told = [f"{num_out:,} of {rows:,} rows left out, as they are of the time or have the values of val or test"] \
        if num_out else []
    told += [*dict.fromkeys(note for one in found for note in one.notes)][:3]
    if not pieces:  # scales there must be
        nothing = ScaledSeries(own, protocol, 1, device, file, whole=True)
        return SeriesCorpus(name, nothing, np.zeros(0, np.int64),
                            f"no window of {name} ({'; '.join(told) or f'{rows:,} rows are fewer than the lookback'})")
    data = ScaledSeries(pieces, protocol, 1, device, file, whole=True)
    starts = data.splits(lookback)["train"]
    channels = len(data.values_CT)
    more = f" ({'; '.join(told)})" if told else ""
    return SeriesCorpus(name, data, starts, f"{len(starts):,} windows of {channels:,} channel"
                                            f"{'s' if channels > 1 else ''} of {name}{more}")
