"""DICOM: what the tags say of the values is kept, and what makes no sense is refused."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmattrib.errors import InputError, InputWarning, MissingExtraError
from mmattrib.io import dicom, load_image

pydicom = pytest.importorskip("pydicom")

RAMP = np.linspace(0, 4095, 20 * 24).reshape(20, 24).astype(np.uint16)


def dicom_file(path: Path, values: np.ndarray = RAMP, **tags: Any) -> Path:
    """A radiograph of 12 bits in 16, unless the tags say otherwise; None leaves a tag out."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = tags.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    data.Rows, data.Columns = values.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 8 * values.itemsize, 12, 11
    data.PixelRepresentation = int(values.dtype.kind == "i")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tags are wrong on purpose
        for name, value in tags.items():
            if value is None:
                delattr(data, name)
            else:
                setattr(data, name, value)
        data.PixelData = values.tobytes()
        data.save_as(path, enforce_file_format=True)
    return path


def grey(path: Path) -> np.ndarray:
    return load_image(path).pixels[:, :, 0].astype(int)


def test_dicom(tmp_path: Path) -> None:
    plain = grey(dicom_file(tmp_path / "a.dcm"))
    assert plain.shape == (20, 24)
    assert (plain[0, 0], plain[-1, -1]) == (0, 255)
    inverted = dicom_file(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(grey(inverted), 255 - plain, atol=1)


def test_without_pydicom_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dicom_file(tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mmattrib\[dicom\]'"):
        load_image(path)


# ------------------------------------------------------------------------------------------ range


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2, -1024), (0.5, 100), (-1, 4095)])
def test_a_window_is_black_to_white(
    tmp_path: Path, function: str, slope: float, intercept: float
) -> None:
    tags = {"RescaleSlope": slope, "RescaleIntercept": intercept, "VOILUTFunction": function}
    path = dicom_file(tmp_path / "w.dcm", WindowCenter=1024, WindowWidth=512, **tags)
    values, pixels = RAMP.astype(float) * slope + intercept, grey(path)
    near = np.abs(values - 1024).argmin()
    assert abs(pixels.ravel()[near] - 128) <= 6
    if function == "SIGMOID":
        expected = 255 / (1 + np.exp(-4 * (values - 1024) / 512))
        np.testing.assert_allclose(pixels, expected, atol=0.51)
    else:
        assert set(pixels[values < 1024 - 257]) <= {0}
        assert set(pixels[values > 1024 + 257]) <= {255}
    ranks = np.argsort(values, axis=None, kind="stable")
    assert (np.diff(pixels.ravel()[ranks]) >= 0).all()  # also where the slope is negative


def test_a_window_does_not_depend_on_the_values_present(tmp_path: Path) -> None:
    window = {"WindowCenter": [2048, 1], "WindowWidth": [4096, 1]}
    whole = grey(dicom_file(tmp_path / "a.dcm", **window))
    half = grey(dicom_file(tmp_path / "b.dcm", RAMP // 2, **window))
    np.testing.assert_allclose(half, whole / 2, atol=1)


def test_a_rescale_with_one_tag_of_two(tmp_path: Path) -> None:
    both = dicom_file(tmp_path / "a.dcm", RescaleSlope=-1, RescaleIntercept=0)
    one = dicom_file(tmp_path / "b.dcm", RescaleSlope=-1)
    np.testing.assert_array_equal(grey(one), grey(both))
    assert grey(one)[0, 0] == 255


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("fill", "tags"),
    [
        (63536, {"PixelPaddingValue": 63536, "BitsStored": 16, "HighBit": 15}),
        (63536, {"PixelPaddingValue": 63536}),
        (4095, {"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 4095}),
        (4095, {"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 4000}),
    ],
)
def test_padding_is_black_and_takes_no_greys(
    tmp_path: Path, photometric: str, fill: int, tags: dict[str, int]
) -> None:
    values = (RAMP // 16 + 500).astype(np.uint16)
    values[:3] = fill
    path = dicom_file(tmp_path / "p.dcm", values, PhotometricInterpretation=photometric, **tags)
    pixels = grey(path)
    assert (pixels[:3] == 0).all()
    assert (pixels[3:].min(), pixels[3:].max()) == (0, 255)


def test_padding_of_signed_pixels_with_an_unsigned_tag(tmp_path: Path) -> None:
    values = (RAMP // 16).astype(np.int16) - 100
    values[:3] = -2000
    path = dicom_file(tmp_path / "s.dcm", values, PixelPaddingValue=-2000)
    data = pydicom.dcmread(path)
    assert int(data.PixelPaddingValue) == -2000
    assert (grey(path)[:3] == 0).all()
    assert grey(path)[3:].max() == 255
    assert np.ptp(grey(path)[3:]) == 255


def test_outliers_without_a_tag_come_with_a_word(tmp_path: Path) -> None:
    values = (RAMP // 64 + 500).astype(np.uint16)
    values[0, 0] = 4095
    path = dicom_file(tmp_path / "o.dcm", values)
    with pytest.warns(InputWarning, match=r"o\.dcm has no window.*500 to 4095.*PixelPadding"):
        assert np.ptp(grey(path)[1:]) < 10


def test_bits_outside_of_the_stored_ones_are_dropped(tmp_path: Path) -> None:
    plain = grey(dicom_file(tmp_path / "a.dcm"))
    overlay = RAMP | (np.eye(20, 24, dtype=np.uint16) << 15)
    np.testing.assert_array_equal(grey(dicom_file(tmp_path / "b.dcm", overlay)), plain)
    shifted = dicom_file(tmp_path / "c.dcm", RAMP << 4, HighBit=15)
    np.testing.assert_array_equal(grey(shifted), plain)


def test_signed_values_keep_their_sign(tmp_path: Path) -> None:
    values = RAMP.astype(np.int16) - 2048
    np.testing.assert_array_equal(
        grey(dicom_file(tmp_path / "a.dcm", values)), grey(dicom_file(tmp_path / "b.dcm"))
    )
    unextended = (values & 0x0FFF).astype(np.int16)  # the sign in bit 11 alone
    np.testing.assert_array_equal(
        grey(dicom_file(tmp_path / "c.dcm", unextended)), grey(dicom_file(tmp_path / "b.dcm"))
    )


def test_a_lookup_table_runs_over_its_bits(tmp_path: Path) -> None:
    item = pydicom.Dataset()
    item.LUTDescriptor = [4096, 0, 16]
    item.add_new("LUTData", "US", [place * 8 for place in range(4096)])
    path = dicom_file(tmp_path / "l.dcm", VOILUTSequence=pydicom.Sequence([item]))
    np.testing.assert_allclose(grey(path), RAMP * 8 / 65535 * 255, atol=0.51)


def test_an_even_picture_says_so(tmp_path: Path) -> None:
    path = dicom_file(tmp_path / "e.dcm", np.full_like(RAMP, 7))
    with pytest.warns(InputWarning, match=r"e\.dcm holds the one value 7"):
        assert (grey(path) == 0).all()


# ------------------------------------------------------------------------------------------ wrong

DEFLATED = "1.2.840.10008.1.2.1.99"
WRONG = {
    "slope nan": ({"RescaleSlope": "NaN"}, "RescaleSlope"),
    "slope infinite": ({"RescaleSlope": "inf"}, "RescaleSlope"),
    "slope zero": ({"RescaleSlope": 0}, "RescaleSlope .* is 0"),
    "intercept nan": ({"RescaleSlope": 1, "RescaleIntercept": "nan"}, "RescaleIntercept"),
    "width zero": ({"WindowCenter": 5, "WindowWidth": 0}, "WindowWidth"),
    "width negative": ({"WindowCenter": 5, "WindowWidth": -3}, "WindowWidth"),
    "width alone": ({"WindowWidth": 3}, "WindowCenter .* is missing"),
    "centre alone": ({"WindowCenter": 3}, "WindowWidth .* is missing"),
    "centre nan": ({"WindowCenter": "nan", "WindowWidth": 9}, "WindowCenter"),
    "function": ({"WindowCenter": 5, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "CUBIC"),
    "bits": ({"BitsStored": 0}, "Bits Stored"),
    "more bits": ({"BitsStored": 40, "HighBit": 39}, "w.dcm"),
    "high bit": ({"HighBit": 3}, "BitsStored"),
    "frames": ({"NumberOfFrames": 3}, r"3 frame\(s\)"),
    "colour": ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "3 channel"),
    "palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE"),
    "no rows": ({"Rows": None}, "cannot be decoded as DICOM"),
    "no bits": ({"BitsStored": None}, "cannot be decoded as DICOM"),
    "no photometric": ({"PhotometricInterpretation": None}, "unnamed colour space"),
    "huge": ({"Rows": 65535, "Columns": 65535}, "65535 x 65535 pixels.*up to 80 million"),
    "short": ({"Rows": 8000, "Columns": 8000}, "cannot be decoded as DICOM"),
    "all padding": ({"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 4095}, "but padding"),
    "deflated": ({"TransferSyntaxUID": DEFLATED}, "deflated"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_tag_that_makes_no_sense_is_named(tmp_path: Path, case: str) -> None:
    tags, message = WRONG[case]
    path = dicom_file(tmp_path / "w.dcm", **tags)
    with pytest.raises(InputError, match=message) as caught:
        load_image(path)
    assert "w.dcm" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_dicom_and_too_large_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "x.dcm"
    broken.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"x\.dcm cannot be decoded as DICOM"):
        load_image(broken)
    monkeypatch.setattr(dicom, "MAX_BYTES", 100)
    with pytest.raises(InputError, match=r"a\.dcm has .* bytes.*up to 100"):
        load_image(dicom_file(tmp_path / "a.dcm"))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damaged_dicom_decodes_or_says_so(tmp_path: Path, data: st.DataObject) -> None:
    tags = {"WindowCenter": 1024, "WindowWidth": 512, "RescaleSlope": 1, "RescaleIntercept": 0}
    content = bytearray(dicom_file(tmp_path / "whole.dcm", RAMP[:3], **tags).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(128, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.dcm"
    path.write_bytes(bytes(content[: data.draw(st.integers(140, len(content)))]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        try:
            pixels = load_image(path).pixels
        except InputError as error:
            message = str(error)
        else:
            assert pixels.dtype == np.uint8
            return
    assert "damaged.dcm" in message
    assert "\n" not in message
