"""Data for image restoration: datasets named by ``class_path`` and the module that loads them."""

from datamodules.datasets import CleanFolder, DeadLeaves, LQFolder
from datamodules.degradations import Degradation, Rain
from datamodules.demo import DemoPhotos, write_demo
from datamodules.errors import DataError
from datamodules.paired import PairedFolder
from datamodules.restoration_data import RestorationData
from datamodules.samples import RestorationDataset, Sample, Source, SourceFiles
from datamodules.task_folders import TaskFolders

__all__ = [
    "CleanFolder",
    "DataError",
    "DeadLeaves",
    "Degradation",
    "DemoPhotos",
    "LQFolder",
    "PairedFolder",
    "Rain",
    "RestorationData",
    "RestorationDataset",
    "Sample",
    "Source",
    "SourceFiles",
    "TaskFolders",
    "write_demo",
]
