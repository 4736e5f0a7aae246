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
    "BTCV": Dataset(
        name="BTCV",
        modality="volumes",
        about="Beyond the Cranial Vault: 30 abdominal CT volumes with 13 organs labelled, 20 without labels",
        licence="by registration",
        files=(File(path="btcv", alternatives=("BTCV", "Abdomen/RawData/Training")),),
        manual="register at https://www.synapse.org, join the challenge `Multi-Atlas Labeling Beyond the Cranial "
               "Vault` (syn3193805), download Abdomen/RawData.zip, unpack it, and put its img*.nii.gz into "
               "btcv/imagesTr and its label*.nii.gz into btcv/labelsTr in a folder that $RAYMAE_DATA or data.root "
               "names, or give the folder that holds imagesTr and labelsTr as data.path (test images, if you like, in "
               "imagesTs; MONAI's dataset_0.json beside them for its 24 + 6 split)",
    ),
    "Hippocampus": Dataset(
        name="Hippocampus",
        modality="volumes",
        about="Medical Segmentation Decathlon, task 4: MRI boxes of about 35 x 50 x 36 mm, anterior and posterior part",
        licence="CC BY-SA 4.0",
        files=(File(path="hippocampus/Task04_Hippocampus", alternatives=("Task04_Hippocampus",)),),
        manual="download Task04_Hippocampus.tar from http://medicaldecathlon.com and unpack it in a folder that "
               "$RAYMAE_DATA or data.root names",
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
