"""Configuration of the data: which images, which classes, which of them are labelled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from trainers.config.base import IGNORE, SMALLEST_VIEW, Frozen, Share, added
from trainers.config.class_names import ADE20K_CLASSES, CITYSCAPES_CLASSES, COCO_STUFF_CLASSES, VOC_CLASSES

MOST_SCENES = 1_000_000
"""Of one split of the digits, which is held in memory: 3 GB of 32 x 32 pixels."""


def _in_order(value: Any) -> Any:
    """Return a mapping as pairs in the order that it has, for that numbers them."""
    return tuple(value.items()) if isinstance(value, Mapping) else value


WeakGroups = Annotated[
    tuple[tuple[str, Annotated[tuple[str, ...], Field(min_length=1)]], ...],
    BeforeValidator(_in_order),
    Field(min_length=1, max_length=IGNORE),
]
"""Groups of classes by their name: given as a mapping, kept as pairs in its order."""


class WeaklyLabelled(Frozen):
    """Data of which unlabelled images may have weak maps: for each pixel a group of classes, one of which it is."""

    weak_groups: WeakGroups | None = added(None)
    """Classes of each group in weak maps, whose values are 0 for the first group, 1 for the second, ..., and 255 where
    nothing is known: `{ground: [road, sidewalk], obstacle: [car]}`; read for `loss.lambda_w` and `css.veto` alone."""

    @property
    def class_groups(self) -> tuple[int, ...]:
        """Value of each class's group in weak maps, in the order of the labels; 255 for a class of no group."""
        number = {name: at for at, (_, names) in enumerate(self.weak_groups or ()) for name in names}
        return tuple(number.get(name, IGNORE) for name in self._classes())

    def _classes(self) -> tuple[str, ...]:
        classes: tuple[str, ...] = self.classes  # type: ignore[attr-defined] # a field of a folder, else a property
        return classes

    @model_validator(mode="after")
    def _groups_are_of_classes(self) -> WeaklyLabelled:
        groups, named = self.weak_groups or (), [name for _, names in self.weak_groups or () for name in names]
        unknown = next((name for name in named if name not in self._classes()), None)
        if unknown is not None:
            raise ValueError(f"weak_groups must name classes, got {unknown!r}: correct it, or add it to classes")
        twice = next((name for name in named if named.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"weak_groups must name a class once, got {twice!r} twice: remove one")
        names = [name for name, _ in groups]
        if len(set(names)) < len(names):
            raise ValueError(f"weak_groups must have different names, got {names}: rename one")
        return self


class DigitsData(WeaklyLabelled):
    """Scenes composed from scikit-learn's real handwritten digits; 10 digits and the background, K = 11.

    A scene is a grid of cells over a smooth dark background; each cell holds a digit with probability `fill`. The 1797
    digits are split into train, dev and val before composing, so no digit of one split is seen in another.
    """

    name: Literal["digits"] = "digits"
    """Kind of the data; another one starts from its own defaults."""
    image_size: int = Field(32, ge=16, le=512, multiple_of=4)
    """Height and width of a scene in pixels."""
    grid: int = Field(2, ge=1, le=16)
    """Cells along each side."""
    fill: Share = 0.6
    """Probability that a cell holds a digit."""
    digit_size: tuple[int, int] = (13, 16)
    """Smallest and largest side of a digit, in pixels; at most a cell."""
    clutter: Share = 0.2
    """Brightest value of the smooth background, in [0, 1]; digits reach 1."""
    labelled: int = Field(80, ge=1, le=MOST_SCENES)
    """Labelled scenes."""
    unlabelled: int = Field(2048, ge=1, le=MOST_SCENES)
    """Unlabelled scenes, apart from the labelled ones."""
    dev: int = Field(256, ge=1, le=MOST_SCENES)
    """Scenes that the objective is measured on, from digits of the training part."""
    val: int = Field(256, ge=1, le=MOST_SCENES)
    """Scenes for the final evaluation."""
    seed: int = Field(0, ge=0)
    """Draws the splits and the scenes; apart from the training seed, so that seeds of training share their data."""
    weak_groups: WeakGroups | None = added(
        (("background", ("background",)), ("digit", tuple(str(digit) for digit in range(10))))
    )
    """Groups of classes in weak maps, which come from the scenes' truth: every pixel has its group."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes, in the order of the labels."""
        return ("background", *(str(digit) for digit in range(10)))

    @property
    def late_splits(self) -> tuple[str, ...]:
        """Splits that are scored once, when training is over."""
        return ("val",)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the images that are stored."""
        return self.image_size, self.image_size

    @model_validator(mode="after")
    def _digits_fit_their_cells(self) -> DigitsData:
        low, high = self.digit_size
        cell = self.image_size // self.grid
        if not 4 <= low <= high <= cell:
            raise ValueError(
                f"digit_size must satisfy 4 <= smallest <= largest <= cell ({cell} px = image_size // grid), "
                f"got {self.digit_size}: change digit_size, image_size or grid"
            )
        return self


class _Drawn(Frozen):
    """Fields of all data on disk: which of the training images are labelled and which are held back."""

    labelled: int | Path = 40
    """Labelled training images: how many to draw with `seed`, every class among them, or a list of names (a file)."""
    dev: int | Path = 60
    """Training images held back for the objective: how many to draw with `seed`, or a list of names (a file)."""
    seed: int = Field(0, ge=0)
    """Draws the splits."""
    test: Path | None = added(None)
    """Training images that take part in nothing but a final test: a list of names (a file); none: there are none."""

    @property
    def late_splits(self) -> tuple[str, ...]:
        """Splits that are scored once, when training is over."""
        return ("val",) if self.test is None else ("val", "test")

    @model_validator(mode="after")
    def _some_images_each(self) -> _Drawn:
        for field in ("labelled", "dev"):
            value = getattr(self, field)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{field} must be at least 1 image or a file of names, got {value}")
        return self


def _as_pairs(value: Any) -> Any:
    """Return a mapping as pairs, sorted by their keys: frozen, and equal where the mappings are."""
    if not isinstance(value, Mapping):
        return value
    return tuple(sorted(value.items(), key=lambda pair: (isinstance(pair[0], str), pair[0])))


STEM = "{stem}"
"""Stands in `mask_pattern` for the name of an image without its extension."""
NO_LABEL = "ignore"
"""Stands in `palette` and `values` for 'no label', unless a class has this name."""

MOST_CLASSES = 254
"""Of a folder: labels are bytes, and 255 is none."""
SIDE_STEP = 4
"""Divides the height and width of a folder's images."""

Byte = Annotated[int, Field(ge=0, le=255)]
Palette = Annotated[tuple[tuple[str, tuple[Byte, Byte, Byte]], ...], BeforeValidator(_as_pairs)]
"""Colours by the name of their class: given as a mapping, kept as pairs."""
Values = Annotated[tuple[tuple[Annotated[int, Field(ge=0, lt=2**16)], str], ...], BeforeValidator(_as_pairs)]
"""Names of classes by their mask value: given as a mapping, kept as pairs."""
Fit = Literal["exact", "pad", "stretch"]


class FolderData(_Drawn, WeaklyLabelled):
    """A folder of images and masks: ROOT/{train,val}/{images,masks}/NAME.*; masks hold class indices or colours."""

    name: Literal["folder"] = "folder"
    """Kind of the data; another one starts from its own defaults."""
    root: Path
    """The folder; relative paths are taken from where the command runs."""
    train: str = "train"
    """Folder of the training images below `root`."""
    val: str = "val"
    """Folder of the official validation images below `root`; only a final evaluation reads it."""
    classes: tuple[str, ...] = Field(min_length=2, max_length=MOST_CLASSES)
    """Names of the K classes, in the order of their labels 0 to K - 1, which are the mask values where neither `values`
    nor `palette` says otherwise."""
    ignore_values: tuple[int, ...] = (IGNORE,)
    """Mask values that mean 'no label'; they become 255. A value that `values` names is what it says there."""
    values: Values | None = added(None)
    """Class of each mask value, `{0: other, 255: road}`, or `ignore`; several values may be one class."""
    palette: Palette | None = added(None)
    """Colour of each class in masks of colours, `{sky: [70, 130, 180], ...}`, and of `ignore`, where there is one."""
    mask_pattern: str = added(STEM + ".png")
    """Name of an image's mask, `{stem}` being the image's name without its extension: `{stem}_mask.png`."""
    allow_missing: bool = added(False)
    """Whether there may be classes that no training mask holds; else they are refused, being mostly a mistake."""
    train_from: str = added("*")
    """Names, as a shell pattern, of the training images that are used at all: `0006R0_*` are those of one drive."""
    val_from: str = added("*")
    """The same of the validation images."""
    labelled_from: str = "*"
    """Names, as a shell pattern, that a number of labelled images is drawn from, of those that are used."""
    height: int = Field(ge=SMALLEST_VIEW, multiple_of=SIDE_STEP)
    """Images and masks are resized to this height when read (bilinear, nearest)."""
    width: int = Field(ge=SMALLEST_VIEW, multiple_of=SIDE_STEP)
    """Images and masks are resized to this width when read."""
    fit: Fit = added("exact")
    """What happens to an image whose aspect ratio is not height : width, by 5 % or more: it is refused (`exact`), keeps
    it and is filled up with ignored pixels (`pad`), or is squashed (`stretch`)."""

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the images that are stored."""
        return self.height, self.width

    @model_validator(mode="after")
    def _classes_are_names(self) -> FolderData:
        for name in self.classes:
            if not name.strip() or not name.isprintable() or self.classes.count(name) > 1:
                raise ValueError(f"classes must be different names of printable letters, got {name!r}: change it")
        return self

    @model_validator(mode="after")
    def _values_mean_one_thing(self) -> FolderData:
        clash = sorted(set(self.ignore_values) & set(range(len(self.classes))))
        if clash and self.values is None and self.palette is None:
            raise ValueError(
                f"ignore_values must not be classes (0 to {len(self.classes) - 1}), got {clash}: remove them"
            )
        if self.values is not None and self.palette is not None:
            raise ValueError("masks must hold values or colours, got both values and palette: set one of them to null")
        if self.values is not None:
            _require_all_classes("values", [name for _, name in self.values], self.classes)
        if self.palette is not None:
            _require_all_classes("palette", [name for name, _ in self.palette], self.classes)
            colours = [colour for _, colour in self.palette]
            twice = [list(colour) for colour in colours if colours.count(colour) > 1]
            if twice:
                raise ValueError(f"palette must have another colour for each class, got {twice[0]} twice: change one")
        return self

    @model_validator(mode="after")
    def _a_pattern_names_one_mask(self) -> FolderData:
        if self.mask_pattern.count(STEM) != 1 or "/" in self.mask_pattern:
            raise ValueError(
                f"mask_pattern must be the name of a file with {STEM} in it once, got {self.mask_pattern!r}: write for "
                f"example {STEM}_mask.png"
            )
        return self


def _require_all_classes(field: str, named: list[str], classes: tuple[str, ...]) -> None:
    unknown = [name for name in named if name not in (*classes, NO_LABEL)]
    if unknown:
        raise ValueError(
            f"{field} must name classes or {NO_LABEL}, got {unknown[0]!r}: correct it, or add it to classes"
        )
    lacking = [name for name in classes if name not in named]
    if lacking:
        raise ValueError(f"{field} must name every class, got none for {lacking[0]!r}: add it, or remove the class")


_FLAT = ("road", "sidewalk", "terrain", "sky")
"""Classes of Cityscapes that are no obstacle."""


class _Published(_Drawn):
    """A data set as its authors publish it: images are read at the size that they have, and each has its own."""

    root: Path
    """Folder of the official layout; relative paths are taken from where the command runs."""

    @property
    def image_shape(self) -> None:
        """Height and width of the images that are stored: none, for they differ."""
        return None


class VocData(_Published):
    """PASCAL VOC 2012, K = 21: ROOT/VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation}."""

    name: Literal["voc"] = "voc"
    """Kind of the data; another one starts from its own defaults."""
    augmented: bool = True
    """Whether SBD's labels count as training images, 10 582 with VOC's 1464; without them, VOC's own alone."""
    sbd_root: Path | None = None
    """SBD's release, SBD_ROOT/benchmark_RELEASE/dataset/{cls,train.txt,val.txt}; none: below `root`. Read where
    VOC2012/SegmentationClassAug does not exist; the images are VOC's."""
    labelled_from: Literal["original", "augmented"] = "original"
    """What a number of labelled images is drawn from: VOC's 1464 (classic splits; dev is then drawn from SBD's, where
    there are any) or all 10 582 (blender splits)."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes, in the order of the labels."""
        return VOC_CLASSES

    @model_validator(mode="after")
    def _drawn_from_what_there_is(self) -> VocData:
        if self.labelled_from == "augmented" and not self.augmented:
            raise ValueError("labelled_from must be original without SBD's labels, got augmented: set augmented=true")
        return self


class CityscapesData(_Published, WeaklyLabelled):
    """Cityscapes, fine labels, K = 19: ROOT/{leftImg8bit,gtFine}/{train,val}/CITY/*.png."""

    name: Literal["cityscapes"] = "cityscapes"
    """Kind of the data; another one starts from its own defaults."""
    weak_groups: WeakGroups | None = added(
        (
            ("ground", ("road", "sidewalk", "terrain")),
            ("obstacle", tuple(name for name in CITYSCAPES_CLASSES if name not in _FLAT)),
        )
    )
    """Groups of classes in weak maps, by default those that disparity tells apart: `s4 data weak` makes the maps."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes, in the order of the labels."""
        return CITYSCAPES_CLASSES


class Ade20kData(_Published):
    """ADE20K as of the scene parsing challenge, K = 150: ROOT/{images,annotations}/{training,validation}."""

    name: Literal["ade20k"] = "ade20k"
    """Kind of the data; another one starts from its own defaults."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes, in the order of the labels."""
        return ADE20K_CLASSES


class CocoStuffData(_Published):
    """COCO-Stuff 10K v1.1, K = 171: ROOT/{images,annotations,imageLists/{train,test}.txt}."""

    name: Literal["coco_stuff"] = "coco_stuff"
    """Kind of the data; another one starts from its own defaults."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes, in the order of the labels."""
        return COCO_STUFF_CLASSES


PublishedData = VocData | CityscapesData | Ade20kData | CocoStuffData
"""The paper's four."""
FileData = FolderData | PublishedData
"""Data that lie on disk."""
AnyData = Annotated[DigitsData | FileData, Field(discriminator="name")]
"""Data of any kind, discriminated by `name`."""

DATA_KINDS = ("digits", "folder", "voc", "cityscapes", "ade20k", "coco_stuff")
"""Every `data.name`."""
