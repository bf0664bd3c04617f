"""Configuration of one training run: frozen, validated at birth, valid or not constructed.

Every field that is read changes the result, and every field is read. Symbols and equation numbers are
those of CSS: "Space Engage: Collaborative Space Supervision for Contrastive-based Semi-Supervised Semantic
Segmentation", ICCV 2023 (arXiv 2307.09755).

Durations are optimizer steps or shares of the whole horizon, so that a step means the same in every run.
"""

from trainers.config.adversary import AdversaryConfig
from trainers.config.bank import BankConfig
from trainers.config.base import IGNORE, Frozen
from trainers.config.data import (
    DATA_KINDS,
    Ade20kData,
    AnyData,
    CityscapesData,
    CocoStuffData,
    DigitsData,
    FileData,
    Fit,
    FolderData,
    PublishedData,
    VocData,
)
from trainers.config.method import (
    AugmentConfig,
    CssConfig,
    EmaConfig,
    GeometryConfig,
    LabelledAugmentConfig,
    LossConfig,
    PhotometricConfig,
    StrongAugmentConfig,
    ThresholdsConfig,
    WeakAugmentConfig,
    similarity_bound,
)
from trainers.config.model import ModelConfig
from trainers.config.streams import StreamConfig, StreamsConfig
from trainers.config.training import (
    ComputeConfig,
    EvaluationConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from trainers.config.unreliable import UnreliableConfig

__all__ = [
    "DATA_KINDS",
    "IGNORE",
    "Ade20kData",
    "AdversaryConfig",
    "AnyData",
    "AugmentConfig",
    "BankConfig",
    "CityscapesData",
    "CocoStuffData",
    "ComputeConfig",
    "CssConfig",
    "DigitsData",
    "EmaConfig",
    "EvaluationConfig",
    "FileData",
    "Fit",
    "FolderData",
    "Frozen",
    "GeometryConfig",
    "LabelledAugmentConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PhotometricConfig",
    "PublishedData",
    "ScheduleConfig",
    "StreamConfig",
    "StreamsConfig",
    "StrongAugmentConfig",
    "ThresholdsConfig",
    "TrainConfig",
    "UnreliableConfig",
    "VocData",
    "WeakAugmentConfig",
    "similarity_bound",
]
