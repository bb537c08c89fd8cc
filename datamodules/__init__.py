"""Data for image restoration: datasets named by ``class_path`` and the module that loads them."""

from datamodules.datasets.base import RestorationDataset, Sample, Source, SourceFiles
from datamodules.datasets.clean import CleanFolder, DeadLeaves, LQFolder
from datamodules.datasets.demo import DemoPhotos, write_demo
from datamodules.datasets.paired import PairedFolder
from datamodules.datasets.task_folders import TaskFolders
from datamodules.errors import DataError
from datamodules.restoration_data import RestorationData

__all__ = [
    "CleanFolder",
    "DataError",
    "DeadLeaves",
    "DemoPhotos",
    "LQFolder",
    "PairedFolder",
    "RestorationData",
    "RestorationDataset",
    "Sample",
    "Source",
    "SourceFiles",
    "TaskFolders",
    "write_demo",
]
