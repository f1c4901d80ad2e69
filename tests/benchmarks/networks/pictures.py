"""Inputs of image networks: photographs that packages ship, rendered text, captchas, terrain."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tests.benchmarks.networks.source import Inputs, Source

Pixels = NDArray[np.float32]
WORDS = "the quick brown fox jumps over a lazy dog while seven wizards quietly bake mixed quince pies for 1984 guests"
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


def photos(
    source: Source,
    *,
    name: str,
    size: tuple[int, int],
    scale: float = 1.0,
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1.0,),
    channels_last: bool = False,
) -> Inputs:
    """Crops of photographs, from 0 to `scale`, less the mean, over the deviation of each channel."""
    pictures = [Image.open(path).convert("RGB") for folder in source.photos for path in _photographs(folder)]
    crops = [_crop(pictures[index % len(pictures)], size, source.random) for index in range(source.count)]
    pixels = (np.stack(crops) * np.float32(scale) - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return {name: pixels if channels_last else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))}


def _photographs(folder: Path) -> list[Path]:
    large = 100_000  # bytes: not the drawings
    paths = sorted(path for end in ("png", "jpg") for path in folder.rglob(f"data*/**/*.{end}"))
    return [path for path in paths if path.stat().st_size > large]


def _crop(picture: Image.Image, size: tuple[int, int], random: np.random.Generator) -> Pixels:
    side = int(min(picture.size) * random.uniform(0.5, 1.0))
    left, top = (int(random.integers(0, extent - side + 1)) for extent in picture.size)
    part = picture.crop((left, top, left + side, top + side)).resize((size[1], size[0]))
    return np.asarray(part, np.float32) / np.float32(255)


def text_lines(source: Source, *, name: str, size: tuple[int, int], turned: bool = False) -> Inputs:
    """One line of text an image, dark on light, from -1 to 1; every other one upside down where `turned`."""
    images = []
    for index in range(source.count):
        line = Image.new("L", (size[1], size[0]), int(source.random.integers(200, 256)))
        words = " ".join(source.random.choice(WORDS.split(), 4))
        ImageDraw.Draw(line).text(
            (4, size[0] // 6), words, fill=int(source.random.integers(0, 60)), font=_font(size[0] // 2)
        )
        images.append(np.asarray(line.rotate(180) if turned and index % 2 else line, np.float32))
    return {name: _three_channels(images)}


def pages(source: Source, *, name: str, size: tuple[int, int], turned: bool = False) -> Inputs:
    """Several lines of text an image, from -1 to 1; turned by quarters where `turned`."""
    images = []
    for index in range(source.count):
        page = Image.new("L", (size[1], size[0]), int(source.random.integers(220, 256)))
        draw, height = ImageDraw.Draw(page), int(source.random.integers(12, 24))
        for top in range(4, size[0] - height, 2 * height):
            draw.text((6, top), " ".join(source.random.choice(WORDS.split(), 6)), fill=20, font=_font(height))
        images.append(np.asarray(page.rotate(90 * (index % 4)) if turned else page, np.float32))
    return {name: _three_channels(images)}


def captchas(
    source: Source,
    *,
    name: str,
    size: tuple[int, int],
    channels: int,
    scale: float = 1.0,
    channels_last: bool = False,
    digits: bool = False,
) -> Inputs:
    """Five characters, each turned a little, and lines through them, from 0 to `scale`."""
    images = []
    for _ in range(source.count):
        image = Image.new("L", (size[1], size[0]), 240)
        for place, letter in enumerate(source.random.choice(list("0123456789" if digits else LETTERS), 5)):
            glyph = Image.new("L", (size[0] * 3 // 4, size[0] * 3 // 4), 0)
            ImageDraw.Draw(glyph).text((4, 2), letter, fill=220, font=_font(size[0] // 2))
            glyph = glyph.rotate(float(source.random.uniform(-20, 20)))
            image.paste(20, (4 + place * size[1] // 5, size[0] // 8), glyph)
        for _ in range(2):
            ends = [int(source.random.integers(0, extent)) for extent in (size[1], size[0]) * 2]
            ImageDraw.Draw(image).line(ends, fill=90)
        images.append(np.asarray(image, np.float32) * np.float32(scale / 255))
    pixels = np.repeat(np.stack(images)[:, None], channels, axis=1)
    return {name: np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)) if channels_last else pixels}


def _font(height: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(height)


def _three_channels(images: list[Pixels]) -> Pixels:
    return np.repeat((np.stack(images)[:, None] / 255 - 0.5) / 0.5, 3, axis=1).astype(np.float32)


def noisy_terrain(source: Source) -> Inputs:
    """Smooth heights of mean 0 and deviation 0.5 with noise of `sigma` added, and a difficulty."""
    count, size = source.count, 128
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    spectrum = np.fft.fft2(source.random.normal(size=(count, size, size))) / np.maximum(frequency, 1 / size) ** 1.5
    heights = np.fft.ifft2(spectrum).real
    heights = 0.5 * (heights - heights.mean((1, 2), keepdims=True)) / heights.std((1, 2), keepdims=True)
    sigma = source.random.uniform(0.05, 1.0, count)
    noisy = heights + sigma[:, None, None] * source.random.normal(size=heights.shape)
    difficulty = source.random.uniform(0, 100, count)
    return {
        "noisy": noisy[:, None].astype(np.float32),
        "sigma": sigma.astype(np.float32),
        "difficulty": difficulty.astype(np.float32),
    }
