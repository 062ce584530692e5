"""The sets of the few-shot literature, as plain data: where they are, how they lie on disk, what their classes read.

Layouts, split files and templates are those of CoOp (Zhou et al. 2022, arXiv 2109.01134), which CoCoOp, MaPLe, COMMA
and PromptSRC share: numbers of these papers are comparable because of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

COOP = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"
PHOTO = "a photo of a {}."


@dataclass(frozen=True)
class ClassificationFacts:
    """What is known about a set before it is read.

    Args:
        name (`str`):
            Name on the command line.
        title (`str`):
            Name as its authors write it.
        folder (`str`):
            Folder below the data root, as CoOp names it.
        images (`str`):
            Folder below that one to which the paths of the split file are relative; empty for the folder itself.
        layout (`str`):
            `"split"` (a split file of CoOp), `"aircraft"` (lists of the authors), `"imagenet"` (folders `train` and
            `val`) or `"variant"` (test images only, of the classes of ImageNet).
        template (`str`):
            Hand-crafted text of a class.
        url (`str`):
            Where the images come from.
        licence (`str`):
            Their licence.
        citation (`str`):
            What to cite.
        split_file (`str`):
            Name of the split file.
        classes (`int`):
            Number of classes.
        sizes (`Mapping[str, int]`):
            Images of each split, where known.
        notes (`str`):
            What else to know.
    """

    name: str
    title: str
    folder: str
    images: str
    layout: str
    template: str
    url: str
    licence: str
    citation: str
    split_file: str = ""
    classes: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    notes: str = ""

    @property
    def expected(self) -> str:
        """What belongs into the folder, in words."""
        images = f"the images in {self.images}/" if self.images else "the images"
        if self.layout == "imagenet":
            return f"classnames.txt and the images in {self.images}/train/ and {self.images}/val/, a folder a class"
        if self.layout == "variant":
            return f"classnames.txt and {images}, a folder a class"
        if self.layout == "aircraft":
            return (
                f"variants.txt, images_variant_train.txt, images_variant_val.txt, images_variant_test.txt and {images}"
            )
        return f"{self.split_file} and {images}"


def _sizes(train: int, validation: int, test: int) -> dict[str, int]:
    return {"train": train, "validation": validation, "test": test}


_NOT_STATED = "not stated by its authors"

SETS: dict[str, ClassificationFacts] = {
    facts.name: facts
    for facts in (
        ClassificationFacts(
            "imagenet",
            "ImageNet",
            "imagenet",
            "images",
            "imagenet",
            PHOTO,
            "https://www.image-net.org/download.php",
            "research and education only, on registration",
            "Deng et al., CVPR 2009",
            classes=1000,
            sizes={"test": 50_000},
            notes="The 50,000 validation images are the test split; a twentieth of the training images, at most 50 of "
            "a class, are the validation split, where CoOp has none.",
        ),
        ClassificationFacts(
            "caltech101",
            "Caltech101",
            "caltech-101",
            "101_ObjectCategories",
            "split",
            PHOTO,
            "https://data.caltech.edu/records/mzrjq-6wc02",
            "CC-BY-4.0",
            "Fei-Fei et al., CVPR Workshop 2004",
            "split_zhou_Caltech101.json",
            100,
            _sizes(4128, 1649, 2465),
            "Without the classes BACKGROUND_Google and Faces_easy.",
        ),
        ClassificationFacts(
            "oxford_pets",
            "OxfordPets",
            "oxford_pets",
            "images",
            "split",
            "a photo of a {}, a type of pet.",
            "https://www.robots.ox.ac.uk/~vgg/data/pets/",
            "CC-BY-SA-4.0",
            "Parkhi et al., CVPR 2012",
            "split_zhou_OxfordPets.json",
            37,
            _sizes(2944, 736, 3669),
        ),
        ClassificationFacts(
            "stanford_cars",
            "StanfordCars",
            "stanford_cars",
            "",
            "split",
            PHOTO,
            "http://ai.stanford.edu/~jkrause/cars/car_dataset.html",
            _NOT_STATED,
            "Krause et al., ICCV Workshop 2013",
            "split_zhou_StanfordCars.json",
            196,
            _sizes(6509, 1635, 8041),
            "Images in cars_train/ and cars_test/.",
        ),
        ClassificationFacts(
            "oxford_flowers",
            "Flowers102",
            "oxford_flowers",
            "jpg",
            "split",
            "a photo of a {}, a type of flower.",
            "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
            _NOT_STATED,
            "Nilsback and Zisserman, ICVGIP 2008",
            "split_zhou_OxfordFlowers.json",
            102,
            _sizes(4093, 1633, 2463),
        ),
        ClassificationFacts(
            "food101",
            "Food101",
            "food-101",
            "images",
            "split",
            "a photo of {}, a type of food.",
            "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
            "pictures of foodspotting.com; see license_agreement.txt",
            "Bossard et al., ECCV 2014",
            "split_zhou_Food101.json",
            101,
            _sizes(50_500, 20_200, 30_300),
        ),
        ClassificationFacts(
            "fgvc_aircraft",
            "FGVCAircraft",
            "fgvc_aircraft",
            "images",
            "aircraft",
            "a photo of a {}, a type of aircraft.",
            "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
            "non-commercial research only",
            "Maji et al., 2013, arXiv:1306.5151",
            classes=100,
            sizes=_sizes(3334, 3333, 3333),
            notes="The folder `data` of the official archive; its own lists are the splits.",
        ),
        ClassificationFacts(
            "sun397",
            "SUN397",
            "sun397",
            "SUN397",
            "split",
            PHOTO,
            "https://vision.princeton.edu/projects/2010/SUN/",
            _NOT_STATED,
            "Xiao et al., CVPR 2010",
            "split_zhou_SUN397.json",
            397,
            _sizes(15_880, 3970, 19_850),
        ),
        ClassificationFacts(
            "dtd",
            "DTD",
            "dtd",
            "images",
            "split",
            "{} texture.",
            "https://www.robots.ox.ac.uk/~vgg/data/dtd/",
            "research only",
            "Cimpoi et al., CVPR 2014",
            "split_zhou_DescribableTextures.json",
            47,
            _sizes(2820, 1128, 1692),
        ),
        ClassificationFacts(
            "eurosat",
            "EuroSAT",
            "eurosat",
            "2750",
            "split",
            "a centered satellite photo of {}.",
            "https://github.com/phelber/EuroSAT",
            "MIT",
            "Helber et al., JSTARS 2019, arXiv:1709.00029",
            "split_zhou_EuroSAT.json",
            10,
            _sizes(13_500, 5400, 8100),
        ),
        ClassificationFacts(
            "ucf101",
            "UCF101",
            "ucf101",
            "UCF-101-midframes",
            "split",
            "a photo of a person doing {}.",
            "https://www.crcv.ucf.edu/data/UCF101.php",
            _NOT_STATED,
            "Soomro et al., 2012, arXiv:1212.0402",
            "split_zhou_UCF101.json",
            101,
            _sizes(7639, 1898, 3783),
            "The middle frame of each video.",
        ),
        ClassificationFacts(
            "imagenet_v2",
            "ImageNet-V2",
            "imagenetv2",
            "imagenetv2-matched-frequency-format-val",
            "variant",
            PHOTO,
            "https://github.com/modestyachts/ImageNetV2",
            "MIT",
            "Recht et al., ICML 2019, arXiv:1902.10811",
            classes=1000,
            sizes={"test": 10_000},
        ),
        ClassificationFacts(
            "imagenet_sketch",
            "ImageNet-Sketch",
            "imagenet-sketch",
            "images",
            "variant",
            PHOTO,
            "https://github.com/HaohanWang/ImageNet-Sketch",
            "MIT (the repository); pictures from the web",
            "Wang et al., NeurIPS 2019, arXiv:1905.13549",
            classes=1000,
            sizes={"test": 50_889},
        ),
        ClassificationFacts(
            "imagenet_a",
            "ImageNet-A",
            "imagenet-adversarial",
            "imagenet-a",
            "variant",
            PHOTO,
            "https://github.com/hendrycks/natural-adv-examples",
            "MIT",
            "Hendrycks et al., CVPR 2021, arXiv:1907.07174",
            classes=200,
            sizes={"test": 7500},
        ),
        ClassificationFacts(
            "imagenet_r",
            "ImageNet-R",
            "imagenet-rendition",
            "imagenet-r",
            "variant",
            PHOTO,
            "https://github.com/hendrycks/imagenet-r",
            "MIT",
            "Hendrycks et al., ICCV 2021, arXiv:2006.16241",
            classes=200,
            sizes={"test": 30_000},
        ),
    )
}
ELEVEN = tuple(name for name, facts in SETS.items() if facts.layout != "variant")
VARIANTS = tuple(name for name, facts in SETS.items() if facts.layout == "variant")
# What is "sunglass" and "projectile" in WordNet has the name of its neighbour in the usual list of class names; two
# classes of one name cannot be told apart. Used only where the list repeats a name.
OTHER_NAMES = {"n04008634": "projectile", "n04355933": "sunglass"}
