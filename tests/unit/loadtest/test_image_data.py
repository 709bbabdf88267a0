"""Samples from images."""

from __future__ import annotations

import io

import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from loadtest_data_helpers import samples_of, signature
from naiad.loadtest import InvalidData
from naiad.loadtest.plan import Sequence

PIXELS = np.random.default_rng(3).integers(0, 256, (4, 6, 3), np.uint8)  # height, width, channels


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    return path


def only(path, model):
    found = samples_of(path, model)
    return found.samples[0].inputs["x"][0], found


@pytest.mark.parametrize("dims", ["-1, 3, 4, 6", "-1, 3, -1, -1"])
def test_channels_come_first_where_the_input_has_them_there(picture, dims):
    """Floating point is 0 to 1."""
    array, found = only(picture, signature(f"x FP32 [{dims}]"))
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, PIXELS.transpose(2, 0, 1) / 255, rtol=1e-6)
    assert found.notes == []


@pytest.mark.parametrize("dims", ["-1, 4, 6, 3", "-1, -1, -1, 3"])
def test_channels_come_last_where_the_input_has_them_there(picture, dims):
    """UINT8 is as it is in the file."""
    assert np.array_equal(only(picture, signature(f"x UINT8 [{dims}]"))[0], PIXELS)


def test_the_configurations_layout_decides_where_the_shape_does_not(tmp_path):
    """3 × 3 × 3 could be either; without a word, channels come first."""
    path = tmp_path / "a.png"
    pixels = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    Image.fromarray(pixels).save(path)
    assert np.array_equal(only(path, signature("x UINT8 [-1, 3, 3, 3]"))[0], pixels.transpose(2, 0, 1))
    said = signature("x UINT8 [-1, 3, 3, 3]", layouts={"x": "NHWC"})
    assert np.array_equal(only(path, said)[0], pixels)


@pytest.mark.parametrize(
    ("datatype", "dtype", "scale"),
    [("FP16", np.float16, 255), ("BF16", ml_dtypes.bfloat16, 255), ("FP64", np.float64, 255), ("INT32", np.int32, 1)],
)
def test_every_type_of_number_has_its_range(picture, datatype, dtype, scale):
    """Floats 0 to 1, whole numbers 0 to 255."""
    array, _ = only(picture, signature(f"x {datatype} [-1, 4, 6, 3]"))
    assert array.dtype == np.dtype(dtype)
    np.testing.assert_allclose(array.astype(np.float64), PIXELS / scale, atol=0.01 if scale > 1 else 0)


@pytest.mark.parametrize("dims", ["-1, 1, 4, 6", "-1, 4, 6, 1", "-1, 4, 6"])
def test_one_channel_is_grey(picture, dims):
    """With or without the dimension of the channel."""
    array, _ = only(picture, signature(f"x UINT8 [{dims}]"))
    assert np.array_equal(array.reshape(4, 6), np.asarray(Image.open(picture).convert("L")))


def test_a_model_without_batching_may_have_a_dimension_of_one_before(picture):
    """``[1, 3, 4, 6]`` and ``[-1, 3, 4, 6]`` are images, too."""
    for first in (1, -1):
        sample = samples_of(picture, signature(f"x UINT8 [{first}, 3, 4, 6]", max_batch_size=0)).samples[0]
        assert np.array_equal(sample.inputs["x"], PIXELS.transpose(2, 0, 1)[np.newaxis])


def test_another_size_is_changed_and_noted(picture):
    """Only where height and width are fixed."""
    array, found = only(picture, signature("x UINT8 [-1, 2, 3, 3]"))
    assert array.shape == (2, 3, 3)
    assert abs(float(array.mean()) - float(PIXELS.mean())) < 30
    assert found.notes == ["1 of 1 images were resized to what the model takes"]


def test_images_are_turned_as_viewers_show_them(tmp_path):
    """A camera writes its orientation beside the pixels."""
    path, exif = tmp_path / "a.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(path, exif=exif)
    assert only(path, signature("x UINT8 [-1, -1, -1, 3]"))[0].shape == (6, 4, 3)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "GIF", "tiff"])
def test_common_formats_are_read(tmp_path, suffix):
    """Whatever Pillow reads; the letters of the suffix do not matter."""
    Image.fromarray(PIXELS).save(tmp_path / f"a.{suffix}")
    assert only(tmp_path / f"a.{suffix}", signature("x UINT8 [-1, 4, 6, 3]"))[0].shape == (4, 6, 3)


def test_an_input_of_strings_gets_the_file_itself(picture):
    """For models that decode images."""
    content = only(picture, signature("x BYTES [-1, 1]"))[0][0]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), PIXELS)


def test_the_images_of_a_folder_are_the_steps_of_a_sequence(tmp_path):
    """As the pictures of a film."""
    for folder, number in (("a", 2), ("b", 1)):
        (tmp_path / folder).mkdir()
        for index in range(number):
            Image.fromarray(PIXELS).save(tmp_path / folder / f"{index}.png")
    assert samples_of(tmp_path, signature("x UINT8 [-1, 4, 6, 3]"), sequence=Sequence()).steps == [(0, 1), (2,)]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "a.png: expected an image"), (b"\x89PNG\r\n\x1a\n", "a.png: expected an image"), (None, "a.png")],
)
def test_a_broken_image_is_refused(picture, content, message):
    """Cut off or none at all; the message names the file."""
    picture.write_bytes(picture.read_bytes()[:60] if content is None else content)
    with pytest.raises(InvalidData, match=message):
        only(picture, signature("x UINT8 [-1, 4, 6, 3]"))


@pytest.mark.parametrize("dims", ["-1, 10", "-1, 5, 6, 2", "-1, -1, -1, -1", "-1, 5, 3, 4, 6"])
def test_an_input_that_is_no_image_is_refused(picture, dims):
    """The message says which shapes are."""
    with pytest.raises(InvalidData, match=r"a.png: expected an input with the shape of an image: height × width"):
        only(picture, signature(f"x UINT8 [{dims}]"))


def test_values_that_the_type_cannot_hold_are_refused(picture):
    """INT8 ends at 127."""
    with pytest.raises(InvalidData, match="is no value of int8"):
        only(picture, signature("x INT8 [-1, 4, 6, 3]"))


def test_more_than_8_bits_are_refused(tmp_path):
    """They would be cut off in silence."""
    path = tmp_path / "a.png"
    Image.fromarray(np.full((4, 6), 40_000, np.uint16)).save(path)
    with pytest.raises(InvalidData, match=r"expected 8 bits for each channel, found mode I;16: save it as .npy"):
        only(path, signature("x UINT8 [-1, 4, 6, 1]"))
