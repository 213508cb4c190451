"""A user's pictures as they lie there: what the report says is what the bundle's own program answers to the files."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ofa_deploy.export import repeat_answers, verify_bundle

RECIPE = """
name: pictures
space:
  name: pictures_16
  base: tiny_16
  in_channels: {channels}
  num_classes: 3
  resolutions: [16]
  widths: [1.0]
  stages:
    - {{width: 16, stride: 1, depths: [1, 2], kernels: [3, 5], expands: [2, 3]}}
data:
  {{name: image_folder, root: {root}, channels: {channels}, size: 24, resize: 28, valid: 0.2, workers: 0, {more}}}
epochs: 3
batch_size: 16
accuracy: {{subnets: 10, heldout: 3, recalibration_images: 48, images: 30}}
"""
TURNED = {1: None, 6: Image.Transpose.ROTATE_90, 3: Image.Transpose.ROTATE_180, 8: Image.Transpose.ROTATE_270}
SHAPES = ((48, 128), (128, 48), (60, 60), (200, 33))


def draw(kind, number):
    """A bright field in one of three places, beside the centre or in it; squashed and cropped they look different."""
    height, width = SHAPES[number % len(SHAPES)]
    rng = np.random.default_rng(100 * kind + number)
    pixels = rng.integers(0, 60, (height, width, 3))
    side, middle = min(height, width) // 3, (height // 2, width // 2)
    top, left = (max(0, middle[i] + (kind - 1) * side - side // 2) for i in (0, 1))
    pixels[top : top + side, left : left + side] += 150
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_pictures(root):
    """Wide, tall, turned, 16-bit, grey, palette and transparent ones, in several formats."""
    for split, count in (("train", 32), ("test", 12)):
        for kind, name in enumerate(("one", "two", "three")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                image, exif = draw(kind, number + (1000 if split == "test" else 0)), Image.Exif()
                how = number % 6
                if how == 0:
                    exif[0x0112] = (orientation := (1, 6, 3, 8)[number // 6 % 4])
                    turned = image.transpose(TURNED[orientation]) if TURNED[orientation] is not None else image
                    turned.save(folder / f"{number}.jpg", exif=exif, quality=95)
                elif how == 1:
                    grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
                    Image.fromarray(grey).save(folder / f"{number}.png")
                else:
                    mode = {2: "L", 3: "P", 4: "RGBA", 5: "RGB"}[how]
                    (image.quantize(32) if mode == "P" else image.convert(mode)).save(folder / f"{number}.png")


@pytest.fixture(scope="module", params=[3, 1], ids=["RGB", "L"])
def bundle(request, tmp_path_factory, ofa_deploy):
    folder = tmp_path_factory.mktemp("shipped")
    write_pictures(folder / "pictures")
    more = "licence: CC0-1.0" if request.param == 1 else "augment: [flip]"
    text = RECIPE.format(channels=request.param, root=folder / "pictures", more=more)
    (folder / "pictures.yaml").write_text(text)
    for words in (
        ("train-supernet", "-c", "pictures.yaml"),
        ("extract", "--target", "jetson_nano", "--max-ms", "50", "--with-preprocessing", "-o", "bundle"),
    ):
        done = ofa_deploy(*words, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder / "bundle"


def test_the_program_answers_every_test_file_as_the_report_counted(bundle):
    report, evidence = (json.loads((bundle / name).read_text()) for name in ("report.json", "evidence.json"))
    test, labels = evidence["test"], json.loads((bundle / "labels.json").read_text())
    root = bundle.parent / "pictures"
    paths = [str(root / name) for name in test["files"]]
    assert len(paths) == report["accuracy"]["n"] == 36
    done = subprocess.run([sys.executable, "infer.py", *paths], cwd=bundle, capture_output=True, text=True, check=True)
    said = [
        line.removeprefix(f"{path}: ").rpartition(" ")[0]
        for path, line in zip(paths, done.stdout.splitlines(), strict=True)
    ]
    assert said == [labels[answer] for answer in test["predicted"]]
    right = sum(one == labels[label] for one, label in zip(said, test["labels"], strict=True))
    assert report["accuracy"]["measured"] == pytest.approx(right / 36)
    assert len(set(said)) > 1


def test_verify_reads_the_files_again(bundle, ofa_deploy, tmp_path):
    done = ofa_deploy("verify", str(bundle), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "36 of 36 test files" in done.stdout


def test_an_answer_that_cannot_be_repeated_is_told(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    evidence = json.loads((copy / "evidence.json").read_text())
    evidence["test"]["predicted"][3] = (evidence["test"]["predicted"][3] + 1) % 3
    (copy / "evidence.json").write_text(json.dumps(evidence))
    found = repeat_answers(copy)
    assert (found.files, found.repeated) == (36, 36)
    assert [evidence["test"]["files"][3] in problem for problem in found.problems] == [True]


def test_files_that_changed_are_not_asked(bundle, tmp_path):
    evidence = json.loads((bundle / "evidence.json").read_text())
    evidence["test"]["sha256"][0] = "0" * 32
    copy = shutil.copytree(bundle, tmp_path / "copy")
    (copy / "evidence.json").write_text(json.dumps(evidence))
    assert (repeat_answers(copy).repeated, repeat_answers(copy).problems) == (35, [])


def test_test_images_travel_where_their_licence_allows(bundle):
    evidence = json.loads((bundle / "evidence.json").read_text())
    licence = json.loads((bundle / "report.json").read_text())["provenance"]["recipe"]["data"]["licence"]
    carried = sorted(path.name for path in bundle.glob("test_*"))
    assert carried == sorted(evidence["samples"])
    assert len(carried) == (8 if licence else 0)


def test_a_sample_that_was_swapped_is_found(bundle, tmp_path):
    carried = sorted(bundle.glob("test_*"))
    if not carried:
        pytest.skip("no test images in this bundle")
    copy = shutil.copytree(bundle, tmp_path / "copy")
    evidence = json.loads((copy / "evidence.json").read_text())
    evidence["samples"][carried[0].name] = (evidence["samples"][carried[0].name] + 1) % 3
    (copy / "evidence.json").write_text(json.dumps(evidence))
    assert any(carried[0].name in problem for problem in verify_bundle(copy))


def test_every_place_says_the_same(bundle):
    import onnx

    how = json.loads((bundle / "preprocessing.json").read_text())
    report = json.loads((bundle / "report.json").read_text())
    props = {one.key: one.value for one in onnx.load(bundle / "model.onnx").metadata_props}
    assert report["preprocessing"] == how
    inside = json.loads(props["ofa_deploy.preprocessing"])
    assert {key: how[key] for key in inside} == inside
    assert (how["shorter_side"], how["crop"], how["height"]) == (28, 24, 16)
    assert how["steps"] == json.loads(props["ofa_deploy.preprocessing_steps"])
    assert all(step in (bundle / "report.md").read_text().replace("\\", "") for step in how["steps"])
