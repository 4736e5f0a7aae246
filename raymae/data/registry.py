"""The data sets that RayMAE knows by name. A new one is an entry in `DATASETS`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from raymae.errors import DataError, unknown

Modality = Literal["series", "images", "scenes", "volumes", "tables"]


@dataclass(frozen=True)
class File:
    """One file, archive or folder of a data set.

    Attributes:
        path: Where it lies inside a root, with forward slashes, such as `ett/ETTh1.csv`. Downloads go there.
        alternatives: Other places inside a root where people have it.
        url: Where it is downloaded from; None where it cannot be.
        md5: Official checksum; None where there is none, as for a folder. A url needs one.
        num_bytes: Official size; None if not known.
    """

    path: str
    alternatives: tuple[str, ...] = ()
    url: str | None = None
    md5: str | None = None
    num_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.url is not None and self.md5 is None:
            raise ValueError(f"a file with a url needs an md5, so that a download can be checked: {self.path}")


@dataclass(frozen=True)
class Dataset:
    """A data set that RayMAE knows by name.

    Attributes:
        name: As in `data.name` of a sweep file.
        modality: Which reader understands it.
        about: One line for people.
        licence: Short name of its licence.
        files: All of them are needed.
        manual: What a person has to do where no program may download it (a registration); "" otherwise.
    """

    name: str
    modality: Modality
    about: str
    licence: str
    files: tuple[File, ...]
    manual: str = ""


DATASETS: dict[str, Dataset] = {
    "ETTh1": Dataset(
        name="ETTh1",
        modality="series",
        about="Electricity transformer, 17,420 hours of 6 loads and the oil temperature OT (2016-07 to 2018-06)",
        licence="CC BY-ND 4.0",
        files=(
            File(
                path="ett/ETTh1.csv",
                alternatives=("ETTh1.csv", "ETT-small/ETTh1.csv"),
                url="https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/ETTh1.csv",
                md5="8381763947c85f4be6ac456c508460d6",
                num_bytes=2_589_657,
            ),
        ),
    ),
    "california-housing": Dataset(
        name="california-housing",
        modality="tables",
        about="California Housing, 20,640 census districts of 1990 x 10 columns, ocean_proximity among them; 207 cells "
              "of total_bedrooms are missing",
        licence="public domain (US census)",
        files=(
            File(
                path="california_housing/housing.csv",
                alternatives=("housing.csv", "housing/housing.csv"),
                md5="926e9da0bad793e03c119a4f5809f65c",
                num_bytes=1_423_529,
            ),
        ),
        manual="take housing.csv (`California Housing Prices` on Kaggle, or datasets/housing in the repository of "
               "Hands-On Machine Learning) and put it there as california_housing/housing.csv",
    ),
}


def known_dataset(name: str) -> Dataset:
    """The entry of that name.

    Raises:
        DataError: There is none; names the nearest.
    """
    if name not in DATASETS:
        raise DataError(unknown("data set", name, DATASETS))
    return DATASETS[name]
