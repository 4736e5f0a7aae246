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
        bundled: The function of `sklearn.datasets` that has it, see `raymae.data.find.bundled`; "" where none does.
    """

    path: str
    alternatives: tuple[str, ...] = ()
    url: str | None = None
    md5: str | None = None
    num_bytes: int | None = None
    bundled: str = ""

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
        labelled: Whether a task can learn from it and be scored on it; without labels it is to pretrain on.
    """

    name: str
    modality: Modality
    about: str
    licence: str
    files: tuple[File, ...]
    manual: str = ""
    labelled: bool = True


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
    "tiny-imagenet": Dataset(
        name="tiny-imagenet",
        modality="images",
        about="200 classes of 64 x 64 photographs, 500 training and 50 validation images each",
        licence="none stated; ImageNet's terms: research, not commercial",
        files=(
            File(
                path="tiny-imagenet-200.zip",
                alternatives=("tiny-imagenet-200", "tiny_imagenet/tiny-imagenet-200.zip",
                              "tiny_imagenet/tiny-imagenet-200", "tiny_imagenet"),
                url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
                md5="90528d7ca1a48142e341f4ef8d21d0de",
                num_bytes=248_100_043,
            ),
        ),
    ),
    "tiny-imagenet-mini": Dataset(
        name="tiny-imagenet-mini",
        modality="images",
        about="10 classes of Tiny ImageNet, 60 training and 10 validation images each; for tests",
        licence="none stated; ImageNet's terms: research, not commercial",
        files=(File(path="tiny_imagenet/mini/tiny-imagenet-200", alternatives=("tiny-imagenet-mini",)),),
        manual="take the first 60 training and 10 validation images of any 10 classes of tiny-imagenet, in its layout, "
               "and put them into tiny-imagenet-mini/",
    ),
    "ADE20K": Dataset(
        name="ADE20K",
        modality="scenes",
        about="Scene parsing benchmark of MIT, SceneParse150: 20,210 training and 2,000 validation images, 150 classes",
        licence="research use; annotations BSD-3-Clause",
        files=(File(path="ade20k/ADEChallengeData2016", alternatives=("ADEChallengeData2016",)),),
        manual="download http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip (923 MB; no official "
               "checksum is published, so no program fetches it here) and unzip it inside $RAYMAE_DATA, data.root or "
               "data.path: that folder then holds ADEChallengeData2016/images and ADEChallengeData2016/annotations",
    ),
    "ade20k-photographs": Dataset(
        name="ade20k-photographs",
        modality="scenes",
        about="Photographs of ADE20K without labels, to pretrain on; 172 of them for sweeps/scene_labels.yaml",
        licence="research use",
        files=(File(path="ade20k/unlabelled_images", alternatives=("unlabelled_images",)),),
        manual="put photographs, such as training images of ADE20K, into a folder ade20k/unlabelled_images inside "
               "$RAYMAE_DATA or data.root",
        labelled=False,
    ),
    "CamVid": Dataset(
        name="CamVid",
        modality="scenes",
        about="Street scenes from a driving car (Cambridge), 480 x 360, 11 classes, in the layout of ADE20K",
        licence="CC BY-NC 4.0",
        files=(File(path="camvid", alternatives=("CamVid",)),),
        manual="put it in the layout of ADE20K into a folder `camvid` inside $RAYMAE_DATA or data.root: "
               "images/{training,validation}/*.png, annotations/{training,validation}/*.png with 0 = ignored and 1 to "
               "11, and objectInfo.txt with the 11 names",
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
    "diabetes": Dataset(
        name="diabetes",
        modality="tables",
        about="442 patients, 10 measurements and how far their disease is a year later; comes with scikit-learn",
        licence="none stated (Efron, Hastie, Johnstone and Tibshirani 2004)",
        files=(File(path="sklearn/diabetes.csv", bundled="load_diabetes"),),
    ),
    "breast-cancer": Dataset(
        name="breast-cancer",
        modality="tables",
        about="Breast Cancer Wisconsin, 569 tumours, 30 measurements and the diagnosis; comes with scikit-learn",
        licence="CC BY 4.0 (UCI)",
        files=(File(path="sklearn/breast_cancer.csv", bundled="load_breast_cancer"),),
    ),
    "wine": Dataset(
        name="wine",
        modality="tables",
        about="178 wines, 13 chemical measurements and the cultivar; comes with scikit-learn",
        licence="CC BY 4.0 (UCI)",
        files=(File(path="sklearn/wine.csv", bundled="load_wine"),),
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
