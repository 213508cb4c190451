"""Images of every shape, mode and orientation: as training reads them, and as the program in a bundle does."""

import io
import json

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from ofa_deploy import pixels
from ofa_deploy.blocks import random_weights
from ofa_deploy.config import DataConfig
from ofa_deploy.export import embed, program
from ofa_deploy.fleet.targets import read_profile
from ofa_deploy.graph import model_file, onnx_bytes
from ofa_deploy.space import PRESETS
from ofa_deploy.training.damage import Damage
from ofa_deploy.training.folders import list_images
from ofa_deploy.training.images import prepare
from ofa_deploy.training.loading import FolderImages
from ofa_deploy.training.torchvision_shim import torchvision_module

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
SHAPES = [(48, 128), (128, 48), (40, 40), (41, 40), (7, 5), (300, 301), (10, 400), (400, 10), (1, 1)]
SUFFIXES = {"P": "png", "1": "png", "LA": "png", "RGBA": "png", "I;16": "png", "CMYK": "jpg", "YCbCr": "jpg"}


def scene(height, width, mode="RGB", seed=0):
    """A smooth picture with a mark in one corner, so that a turned or mirrored one differs."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (max(1, height // 8), max(1, width // 8), 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    image.paste((255, 0, 0), (0, 0, max(1, width // 4), max(1, height // 4)))
    if mode == "I;16":
        grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
        return Image.fromarray(grey)
    if mode == "P":
        return image.quantize(64)
    return image.convert(mode)


def folder_with(tmp_path, image, suffix="png", **how):
    for name in ("a", "b"):
        (tmp_path / name).mkdir(parents=True)
        image.save(tmp_path / name / f"one.{suffix}", **how)
    return tmp_path


def trained(root, config):
    """What training evaluates on: the first image of a folder, ``float32[C, size, size]``."""
    images = FolderImages(list_images(root), config, Damage(0, 2))
    frame, _ = images[0]
    return frame


def shipped():
    """The names that a bundle's ``infer.py`` defines, without what it runs."""
    text = program("onnxruntime").decode().split("HERE = Path(__file__)")[0]
    names = {}
    exec(compile(text, "infer.py", "exec"), names)  # what users run
    return names


def facts(mode="RGB", side=24, shorter=36, crop=32):
    count = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    mean, std = [*MEAN, 0.5][:count], [*STD, 0.2][:count]
    return {
        "mode": mode,
        "shorter_side": shorter,
        "crop": crop,
        "height": side,
        "width": side,
        "mean": mean,
        "std": std,
    }


@pytest.mark.parametrize("mode", ["RGB", "L", *SUFFIXES])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_training_and_the_program_see_the_same(tmp_path, shape, mode, channels):
    root = folder_with(tmp_path, scene(*shape, mode), SUFFIXES.get(mode, "png"))
    how = facts(pixels.MODES[channels])
    frame = trained(root, DataConfig(name="image_folder", root=root, size=32, resize=36, channels=channels))
    seen = prepare(frame[None], 24, tuple(how["mean"]), tuple(how["std"]))[0].numpy()
    file = next((root / "a").iterdir())
    found = shipped()["read"](str(file), how)
    assert found.shape == (channels, 24, 24)
    assert grey_levels(found, seen, how) < 0.01
    assert np.ptp(found) > 0.5  # a picture, not one grey


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sizes", [(36, 32), (32, 32), (20, 32)])
def test_it_frames_as_torchvision_does(shape, sizes):
    """To the bit as torchvision does with Pillow's images, once the ends of lines are cut off."""
    functional = torchvision_module("transforms.v2.functional")
    image = scene(*shape)
    if max(shape) > 8 * min(shape):
        cut = functional.center_crop(image, [min(shape[0], 8 * shape[1]), min(shape[1], 8 * shape[0])])
    else:
        cut = image
    expected = functional.center_crop(functional.resize(cut, [sizes[0]]), [sizes[1]] * 2)
    assert np.array_equal(pixels.framed(np.asarray(image), *sizes), np.asarray(expected))


@pytest.mark.parametrize("turned", range(1, 9))
def test_a_camera_s_orientation_is_applied(tmp_path, turned):
    upright = scene(48, 64)
    exif = Image.Exif()
    exif[0x0112] = turned
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions, by EXIF's orientation
    stored = upright.transpose(Image.Transpose(undo[turned])) if turned > 1 else upright
    root = folder_with(tmp_path, stored, exif=exif)
    frame = trained(root, DataConfig(name="image_folder", root=root, size=40))
    assert np.array_equal(frame.permute(1, 2, 0).numpy(), pixels.framed(np.asarray(upright), 40, 40))
    how = facts(shorter=40, crop=40, side=40)
    found = shipped()["read"](str(root / "a" / "one.png"), how)
    assert np.array_equal(found, pixels.network_input(np.asarray(upright), how))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    levels = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    file = tmp_path / "deep.png"
    Image.fromarray(levels).save(file)
    with Image.open(file) as image:
        found = pixels.upright(image, "RGB")
    assert found.shape == (64, 64, 3)
    assert np.array_equal(found[..., 0], (levels // 257).astype(np.uint8))


def test_floating_point_is_refused():
    with pytest.raises(ValueError, match="floating-point"):
        pixels.upright(Image.fromarray(np.zeros((4, 4), np.float32)), "L")


@pytest.mark.parametrize("shape", SHAPES[:8])
@pytest.mark.parametrize("frame", [(36, 32), (32, 32), (None, None)])
def test_a_model_that_takes_any_size_does_the_same_within_a_grey_level(shape, frame):
    space = PRESETS["tiny_16"]
    network = space.network(space.smallest)
    channels, side, _ = network.input_shape
    how = facts(pixels.MODES[channels], side, *frame)
    model = model_file(network, random_weights(network), read_profile("local"))
    made = embed(model, how, "any size")
    onnx.checker.check_model(made, full_check=True)
    made.graph.output.append(
        onnx.helper.make_tensor_value_info("preprocessing.normalised", onnx.TensorProto.FLOAT, None)
    )
    session = onnxruntime.InferenceSession(onnx_bytes(made))
    image = np.asarray(scene(*shape).convert(how["mode"])).reshape(*shape, channels)
    logits, seen = session.run(None, {"input": image[None]})
    assert grey_levels(seen[0], pixels.network_input(image, how), how) < 1
    expected = onnxruntime.InferenceSession(model).run(None, {"input": seen})[0]
    assert np.allclose(logits, expected, atol=1e-4)


def test_the_description_is_plain_json():
    assert json.loads(json.dumps(facts())) == facts()
    assert pixels.read(io.BytesIO(png(scene(9, 9))), facts()).dtype == np.float32


def png(image):
    content = io.BytesIO()
    image.save(content, "png")
    return content.getvalue()


def grey_levels(one, other, how):
    """The largest difference of two networks' inputs, in grey levels."""
    return float((np.abs(one - other) * np.array(how["std"]).reshape(-1, 1, 1)).max() * 255)
