"""Steps that come with Naiad, and how the source of a function is taken along."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pipeline_helpers
from naiad.export import InvalidRecipe
from naiad.export._pipeline import source
from naiad.export.steps import Function, decode_image, tokenize


class TestSource:
    def test_only_what_a_function_uses_is_taken(self) -> None:
        """Other functions, names of arguments and annotations bring nothing along."""
        text = source.take(pipeline_helpers.verdict, "a").text
        assert "OFFSET = 0.5" in text
        assert not any(word in text for word in ("SCALE", "shutil", "Repository", "def lengths"))
        decode = decode_image("decode", size=(2, 2))
        assert "def _pixels" in source.take(decode.function, "decode").text

    def test_packages_are_named_with_their_versions(self) -> None:
        """Also those that are imported within functions."""
        decode = decode_image("decode", size=(2, 2))
        taken = source.take(decode.function, "decode")
        assert taken.imports == ("PIL", "numpy")
        assert [item.partition("==")[0] for item in taken.requirements] == ["numpy", "pillow"]


class TestImages:
    def test_pixels_are_normalised_by_channel(self) -> None:
        """Mean and deviation are applied after the scale, channels come first."""
        step = decode_image("decode", size=(2, 3), mean=[0.5, 0.25, 0], std=[2, 1, 1])
        pixels = step.function(self.files("png", (51, 102, 255)), **step.options)["pixels"]
        assert pixels.shape == (1, 3, 2, 3)
        assert pixels.dtype == np.float32
        np.testing.assert_allclose(pixels[0, :, 0, 0], [(0.2 - 0.5) / 2, 0.4 - 0.25, 1.0], atol=1e-6)

    def test_a_crop_keeps_the_middle(self) -> None:
        """The sides of a wide image are cut off, where stretching would keep them."""
        image = Image.new("RGB", (30, 10), "red")
        image.paste("blue", (10, 0, 20, 10))
        file = io.BytesIO()
        image.save(file, "png")
        means = {}
        for fit in ("crop", "stretch"):
            step = decode_image("decode", size=(10, 10), fit=fit)
            means[fit] = step.function(np.array([[file.getvalue()]], object), **step.options)["pixels"][0, 0].mean()
        assert means["crop"] < 0.01
        assert means["stretch"] > 0.5

    @pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n broken"])
    def test_what_is_no_image_is_a_value_error(self, data: bytes) -> None:
        """So that the server answers INVALID_ARGUMENT."""
        step = decode_image("decode", size=(2, 2))
        with pytest.raises(ValueError, match="image"):
            step.function(np.array([[data]], object), **step.options)

    def test_a_truncated_file_is_a_value_error(self) -> None:
        """Half a file is no image."""
        data = self.files("png", (1, 2, 3), size=(64, 64))[0, 0]
        step = decode_image("decode", size=(2, 2))
        with pytest.raises(ValueError, match="cannot be decoded"):
            step.function(np.array([[data[: len(data) // 2]]], object), **step.options)

    @pytest.mark.parametrize(
        "wrong", [{"size": (0, 2)}, {"mode": "CMYK"}, {"fit": "tile"}, {"mean": [0.5]}, {"mode": "L", "std": [1, 1, 1]}]
    )
    def test_wrong_arguments(self, wrong: dict[str, Any]) -> None:
        """They are refused when the recipe is built."""
        with pytest.raises(InvalidRecipe, match="step 'decode' has size="):
            decode_image("decode", **({"size": (2, 2)} | wrong))

    def files(self, kind: str, colour: tuple[int, int, int], size: tuple[int, int] = (4, 4)) -> np.ndarray:
        file = io.BytesIO()
        Image.new("RGB", size, colour).save(file, kind)
        return np.array([[file.getvalue()]], object)


class TestTokens:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        from tokenizers import Tokenizer, models, pre_tokenizers

        words = {"[PAD]": 0, "[UNK]": 1, "one": 2, "two": 3, "three": 4}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        return tmp_path / "tokenizer.json"

    @pytest.mark.parametrize(
        ("options", "length"),
        [({}, 3), ({"multiple_of": 4}, 4), ({"padding": "max_length"}, 8)],
        ids=["longest", "multiple", "max_length"],
    )
    def test_padding(self, file: Path, options: dict[str, Any], length: int) -> None:
        """To the longest of a request, to a multiple, or always to the largest length."""
        tokens = self.tokens(tokenize("tokens", file, max_length=8, **options), ["one two three", "two"])
        assert tokens["ids"].tolist() == [[2, 3, 4] + [0] * (length - 3), [3] + [0] * (length - 1)]
        assert tokens["mask"].sum(1).tolist() == [3, 1]
        assert tokens["ids"].dtype == np.int64

    def test_long_texts_are_cut(self, file: Path) -> None:
        """At max_length."""
        assert self.tokens(tokenize("tokens", file, max_length=2), ["one two three"])["ids"].tolist() == [[2, 3]]

    @pytest.mark.parametrize(
        "wrong", [{"max_length": 0}, {"padding": "none"}, {"multiple_of": 3}, {"multiple_of": 0}, {"tokenizer": "none"}]
    )
    def test_wrong_arguments(self, file: Path, wrong: dict[str, Any]) -> None:
        """They are refused when the recipe is built."""
        with pytest.raises(InvalidRecipe, match="step 'tokens' has"):
            tokenize(**({"name": "tokens", "tokenizer": file, "max_length": 8} | wrong))

    def tokens(self, step: Function, text: list[str]) -> dict[str, np.ndarray]:
        array = np.array([[row.encode()] for row in text], object)
        return step.function(array, **step.options, tokenizer=str(step.files["tokenizer"]))
