"""The benchmarks that are read from their official files: one short file each, on a common base."""

from .aro import AroAttribution, AroCocoOrder, AroFlickrOrder, AroRelation
from .base import BenchmarkTask
from .bivlc import BiVlc
from .cola import Cola
from .colorswap import ColorSwap
from .crepe import CREPE_TASKS
from .eqben import EqBen
from .facts import Benchmark, ImageSource, OfficialFile, Published
from .files import DATA_VARIABLE, candidate_folders, sha256_of
from .imagenet import IMAGENET_TASKS, ImageNetTask
from .installed import FileStatus, Installed, find_installed
from .mmvp_vlm import MmvpVlm
from .negbench import NEGBENCH_TASKS
from .retrieval import RETRIEVAL_TASKS, OfficialRetrieval
from .spec import SpecImageToText, SpecTextToImage
from .sugarcrepe import SugarCrepe
from .sugarcrepe_pp import SugarCrepePP
from .svo_probes import SvoProbes
from .valse import Valse
from .vl_checklist import VlCheckList
from .vsr import Vsr
from .whatsup import WHATSUP_TASKS
from .winoground import TwoByTwo, Winoground

# In the order in which `vlcomp tasks` lists them.
BENCHMARKS: tuple[type[BenchmarkTask] | type[OfficialRetrieval] | type[ImageNetTask], ...] = (
    SugarCrepe,
    SugarCrepePP,
    Valse,
    Vsr,
    AroRelation,
    AroAttribution,
    AroCocoOrder,
    AroFlickrOrder,
    Winoground,
    EqBen,
    ColorSwap,
    BiVlc,
    Cola,
    MmvpVlm,
    SvoProbes,
    SpecImageToText,
    SpecTextToImage,
    *WHATSUP_TASKS,
    *CREPE_TASKS,
    VlCheckList,
    *NEGBENCH_TASKS,
    *RETRIEVAL_TASKS,
    *IMAGENET_TASKS,
)

__all__ = [
    "BENCHMARKS",
    "DATA_VARIABLE",
    "AroAttribution",
    "AroCocoOrder",
    "AroFlickrOrder",
    "AroRelation",
    "Benchmark",
    "BenchmarkTask",
    "BiVlc",
    "Cola",
    "ColorSwap",
    "EqBen",
    "FileStatus",
    "ImageNetTask",
    "ImageSource",
    "Installed",
    "MmvpVlm",
    "OfficialFile",
    "OfficialRetrieval",
    "Published",
    "SpecImageToText",
    "SpecTextToImage",
    "SugarCrepe",
    "SugarCrepePP",
    "SvoProbes",
    "TwoByTwo",
    "Valse",
    "VlCheckList",
    "Vsr",
    "Winoground",
    "candidate_folders",
    "find_installed",
    "sha256_of",
]
