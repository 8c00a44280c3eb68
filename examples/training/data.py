"""Images to train on: scikit-learn's digits, or a folder of folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

Size = tuple[int, int, int]
IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp"}


class Split(NamedTuple):
    """Examples ``(image, label)`` to train on and to test with, images from −1 to 1 in one size."""

    train: Dataset[tuple[Tensor, Tensor]]
    test: Dataset[tuple[Tensor, Tensor]]
    classes: int


def digits(size: Size) -> Split:
    """The 1797 handwritten digits that come with scikit-learn, a quarter of them to test with."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    found = load_digits()
    channels, *area = size
    images = torch.tensor(found.images, dtype=torch.float32).unsqueeze(1) / 8 - 1  # (N, 1, 8, 8)
    images = F.interpolate(images, area, mode="bilinear").repeat(1, channels, 1, 1)
    labels = torch.tensor(found.target)
    train, test = train_test_split(torch.arange(len(labels)), test_size=0.25, random_state=0, stratify=labels)
    return Split(TensorDataset(images[train], labels[train]), TensorDataset(images[test], labels[test]), 10)


def image_folder(path: Path, size: Size) -> Split:
    """``path/train/<class>/*.jpg`` and ``path/test/<class>/*.jpg``, or ``val`` for ``test``.

    Training images are cropped and mirrored at random, the others cut from the middle.
    """
    test = path / "test" if (path / "test").is_dir() else path / "val"
    for folder in (path / "train", test):
        if not folder.is_dir():
            raise SystemExit(
                f"{folder} is no folder: images are expected in {path}/train and {path}/test, one folder a class"
            )
    classes = sorted(entry.name for entry in (path / "train").iterdir() if entry.is_dir())
    if not classes:
        raise SystemExit(f"{path / 'train'} holds no folder: each class has one, which holds its images")
    return Split(
        _Folder(path / "train", classes, size, _random_cut), _Folder(test, classes, size, _middle), len(classes)
    )


class _Folder(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, path: Path, classes: list[str], size: Size, cut: Callable[[Tensor, Size], Tensor]) -> None:
        self.files = [
            (file, label)
            for label, name in enumerate(classes)
            for file in sorted((path / name).glob("*"))
            if file.suffix.lower() in IMAGES
        ]
        self.size, self.cut = size, cut

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        file, label = self.files[index]
        return self.cut(_read(file, self.size[0]), self.size) * 2 - 1, torch.tensor(label)


def _read(file: Path, channels: int) -> Tensor:
    """``(C, H, W)`` from 0 to 1."""
    from PIL import Image

    with Image.open(file) as image:
        converted = image.convert("L" if channels == 1 else "RGB")
        content = torch.frombuffer(bytearray(converted.tobytes()), dtype=torch.uint8)
        return content.view(converted.height, converted.width, channels).permute(2, 0, 1) / 255


def _random_cut(image: Tensor, size: Size) -> Tensor:
    """A rectangle of 8 to 100 % of the area, anywhere, mirrored half of the time."""
    _, height, width = image.shape
    share, ratio = torch.empty(()).uniform_(0.08, 1.0), torch.empty(()).uniform_(-0.29, 0.29).exp()
    rows = min(height, max(1, round(height * float((share / ratio).sqrt()))))
    columns = min(width, max(1, round(width * float((share * ratio).sqrt()))))
    top, left = int(torch.randint(height - rows + 1, ())), int(torch.randint(width - columns + 1, ()))
    part = _resized(image[:, top : top + rows, left : left + columns], size[1:])
    return part.flip(2) if torch.rand(()) < 0.5 else part


def _middle(image: Tensor, size: Size) -> Tensor:
    """The largest square in the middle, less an eighth."""
    side = max(1, round(min(image.shape[1:]) * 7 / 8))
    top, left = ((length - side) // 2 for length in image.shape[1:])
    return _resized(image[:, top : top + side, left : left + side], size[1:])


def _resized(image: Tensor, area: tuple[int, ...]) -> Tensor:
    return F.interpolate(image[None], area, mode="bilinear", antialias=True)[0]
