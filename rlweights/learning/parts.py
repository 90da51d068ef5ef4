"""What an observation consists of: numbers, images and indices, and where each lies in the encoded array."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Filters, kernel size and stride of the convolutions of Mnih et al. 2015, "Nature", 518:529."""

MIDDLE = ((32, 3, 2), (64, 3, 2))
"""Convolutions for images of 16 to 35 pixels: 35 x 35 become 8 x 8."""

SMALL = ((16, 3, 1), (32, 3, 1))
"""Convolutions for images of 7 to 15 pixels, where every cell counts: 7 x 7 become 3 x 3."""

SMALLEST = 7
"""Pixels that an image has at least, in height and in width; what is smaller is flat."""


@dataclass(frozen=True)
class Part:
    """One part of an observation: a whole space, or one entry of a Dict or a Tuple.

    Attributes:
        name: Keys from the outermost space on, "arm.camera"; "" if the observation has no parts.
        kind: "numbers"; "image", for convolutions; or "index", whole numbers to be looked up in a table.
        shape: Shape of the part, an image as [H, W, C], indices as [K].
        start: Where the part begins in the flat encoded observation.
        counts: Of indices: how many values each has.
    """

    name: str
    kind: Literal["numbers", "image", "index"]
    shape: tuple[int, ...]
    start: int = 0
    counts: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Entries of the flat encoded observation that this part takes."""
        size = 1
        for each in self.shape:
            size *= each
        return size

    @property
    def end(self) -> int:
        """Where the part ends in the flat encoded observation."""
        return self.start + self.size


def layer_prefixes(parts: Sequence[Part]) -> list[str]:
    """Returns what the names of each part's layers begin with: "camera_", "" for a whole observation."""
    names = [re.sub(r"[^A-Za-z0-9_-]", "_", part.name) for part in parts]
    return [
        f"{name}_{i}_" if names.count(name) > 1 else f"{name}_" if name else ""
        for i, name in enumerate(names)
    ]


def convolutions_for(shape: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    """Returns the convolutions (filters, kernel size, stride) that fit an image [H, W, C]."""
    pixels = min(shape[:2])
    return NATURE if pixels >= 36 else MIDDLE if pixels >= 16 else SMALL


def convolved_size(shape: Sequence[int]) -> int:
    """Returns how many features the convolutions of `convolutions_for` make of an image [H, W, C]."""
    height, width, channels = shape
    for filters, size, stride in convolutions_for(shape):
        height, width = ((each - size) // stride + 1 for each in (height, width))
        channels = filters
    return height * width * channels


def first_inputs(parts: Sequence[Part], table_width: int) -> int:
    """Returns how many inputs the first dense layer has behind the parts of an observation."""
    sizes = {
        "numbers": lambda part: part.size,
        "image": lambda part: convolved_size(part.shape),
        "index": lambda part: part.size * table_width,
    }
    return sum(sizes[part.kind](part) for part in parts)


def image_axes(shape: Sequence[int]) -> tuple[tuple[int, int, int], tuple[int, ...]] | None:
    """Finds height, width and channels of an image, or of a stack of images.

    Args:
        shape: [H, W], [H, W, C], [C, H, W]; a stack of K images [K, H, W, C], [K, C, H, W], [H, W, C, K] or
            [C, H, W, K].

    Returns:
        The shape [H, W, C] as it goes through convolutions, stacks folded into the channels, and the order in
        which the axes are taken; None if this is no image of at least SMALLEST pixels.
    """
    if len(shape) == 2:
        return ((shape[0], shape[1], 1), (0, 1)) if min(shape) >= SMALLEST else None
    if len(shape) == 3:
        order = (1, 2, 0) if shape[0] < min(shape[1:]) else (0, 1, 2)
        height, width, channels = (shape[axis] for axis in order)
        return ((height, width, channels), order) if min(height, width) >= SMALLEST else None
    if len(shape) == 4:
        for stack, others in ((0, (1, 2, 3)), (3, (0, 1, 2))):
            found = image_axes([shape[axis] for axis in others])
            if found is not None:
                (height, width, channels), order = found
                rows, columns, inner = (others[axis] for axis in order)
                last = (stack, inner) if stack == 0 else (inner, stack)
                return (height, width, channels * shape[stack]), (rows, columns, *last)
    return None
