from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from sklearn.utils.parallel import Parallel, delayed

from featstore import decode as module
from featstore.decode import decode, thumbnail
from featstore.errors import InputError
from featstore.records import Reason, Rejected
from featstore.spec import PixelSpec, Resize
from tests.featstore.picture_files import encoded, photograph, turned

RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)


def pixels(data: bytes, size: tuple[int, int] = (4, 4), **spec: Any) -> npt.NDArray[np.uint8]:
    return decode(data, [PixelSpec(size, **{"resize": "nearest", **spec})])[0]


def reason_for(data: bytes) -> Reason:
    with pytest.raises(Rejected) as caught:
        pixels(data)
    assert "\n" not in caught.value.detail
    assert caught.value.detail
    return caught.value.reason


def one_colour(array: npt.NDArray[np.uint8]) -> tuple[int, ...]:
    assert (array == array[0, 0]).all()
    return tuple(int(c) for c in array[0, 0])


class TestFormats:
    @pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP", "JPEG"])
    def test_every_format_is_decoded_by_its_content(self, kind: str) -> None:
        options = {"lossless": True} if kind == "WEBP" else {}
        array = pixels(encoded(Image.new("RGB", (8, 8), RED), kind, **options), (5, 7))
        assert array.shape == (5, 7, 3)
        assert array.dtype == np.uint8
        assert np.abs(array.astype(int) - RED).max() <= 2

    def test_the_result_is_memory_of_its_own(self) -> None:
        array = pixels(encoded(photograph()))
        array[:] = 0
        assert array.flags.owndata

    @pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
    def test_of_an_animation_the_first_frame_is_taken(self, kind: str) -> None:
        second = Image.new("RGB", (8, 8), (0, 0, 255))
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(Image.new("RGB", (8, 8), RED), kind, save_all=True, append_images=[second], **options)
        assert one_colour(pixels(data)) == RED

    def test_of_a_multi_picture_jpeg_the_first_is_taken(self) -> None:
        data = encoded(Image.new("L", (8, 8), 200), "MPO", save_all=True, append_images=[Image.new("L", (8, 8), 9)])
        assert one_colour(pixels(data)) == (200, 200, 200)

    def test_a_tiff_is_a_picture_of_an_unsupported_format(self) -> None:
        assert reason_for(encoded(photograph(), "TIFF")) == Reason.UNSUPPORTED_FORMAT

    @pytest.mark.parametrize("data", [b"hello", b"\0", b"<svg></svg>", b"BMW and other cars" * 9])
    def test_text_and_noise_are_not_images(self, data: bytes) -> None:
        assert reason_for(data) == Reason.NOT_AN_IMAGE

    def test_an_empty_file_says_so(self) -> None:
        assert reason_for(b"") == Reason.EMPTY_FILE


class TestModes:
    def test_grey_is_the_same_in_all_channels(self) -> None:
        assert one_colour(pixels(encoded(Image.new("L", (4, 4), 77)))) == (77, 77, 77)

    def test_one_bit_is_black_or_white(self) -> None:
        assert one_colour(pixels(encoded(Image.new("1", (4, 4), 1)))) == WHITE

    def test_a_palette_gives_its_colours(self) -> None:
        assert one_colour(pixels(encoded(Image.new("RGB", (4, 4), RED).quantize(4)))) == RED

    @pytest.mark.parametrize(("value", "shown"), [(0, 0), (255, 0), (256, 1), (0x8000, 128), (65535, 255)])
    def test_sixteen_bits_are_scaled_and_not_clipped(self, value: int, shown: int) -> None:
        image = Image.fromarray(np.full((4, 4), value, np.uint16))
        assert one_colour(pixels(encoded(image))) == (shown,) * 3

    def test_cmyk_becomes_rgb(self) -> None:
        data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
        assert np.abs(pixels(data).astype(int) - RED).max() <= 3

    @pytest.mark.parametrize(("mode", "colour"), [("RGBA", (10, 20, 30, 0)), ("LA", (10, 0))], ids=["RGBA", "LA"])
    def test_what_is_transparent_becomes_white(self, mode: str, colour: tuple[int, ...]) -> None:
        assert one_colour(pixels(encoded(Image.new(mode, (4, 4), colour)))) == WHITE

    def test_half_transparent_black_on_white_is_grey(self) -> None:
        assert one_colour(pixels(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128))))) == (127, 127, 127)

    def test_an_opaque_alpha_channel_changes_nothing(self) -> None:
        picture = photograph()
        assert (pixels(encoded(picture)) == pixels(encoded(picture.convert("RGBA")))).all()

    @pytest.mark.parametrize("mode", ["P", "L"])
    def test_a_transparent_colour_becomes_white(self, mode: str) -> None:
        image = Image.new(mode, (4, 4), 3)
        if mode == "P":
            image.putpalette([0, 0, 0] * 256)
        assert one_colour(pixels(encoded(image, transparency=3))) == WHITE

    def test_a_transparent_gif_is_laid_on_white(self) -> None:
        image = Image.new("P", (4, 4), 1)
        image.putpalette([0, 0, 0, 9, 9, 9])
        assert one_colour(pixels(encoded(image, "GIF", transparency=1))) == WHITE


def tagged(orientation: int, kind: str) -> bytes:
    """A photograph stored so that ``orientation`` brings it upright."""
    inverse = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    turn = module._UPRIGHT.get(inverse.get(orientation, 1))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = photograph() if turn is None else photograph().transpose(turn)
    options: dict[str, Any] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    return encoded(stored, kind, exif=exif, **options)


class TestOrientation:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_every_orientation_is_brought_upright(self, orientation: int, kind: str) -> None:
        upright = np.asarray(photograph()).astype(int)
        array = pixels(tagged(orientation, kind), (40, 60))
        assert np.abs(array - upright).max() <= (6 if kind == "JPEG" else 0)

    @pytest.mark.parametrize("orientation", [0, 9, 255])
    def test_an_orientation_that_does_not_exist_is_ignored(self, orientation: int) -> None:
        assert (pixels(tagged(orientation, "PNG"), (40, 60)) == np.asarray(photograph())).all()

    @pytest.mark.parametrize(
        "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0junk"]
    )
    def test_an_exif_that_cannot_be_read_costs_nothing_but_itself(self, exif: bytes) -> None:
        plain = encoded(photograph(), "JPEG")
        assert (pixels(encoded(photograph(), "JPEG", exif=exif)) == pixels(plain)).all()

    def test_rotated_photographs_agree_with_the_upright_one(self, odd_images: Path) -> None:
        for shape in ("Landscape", "Portrait"):
            arrays = [
                pixels((odd_images / f"exif-orientation/{shape}_{i}.jpg").read_bytes(), (64, 64), resize="bilinear")
                for i in range(9)
            ]
            for array in arrays[2:]:
                assert np.abs(array.astype(int) - arrays[1]).mean() < 5


class TestResizing:
    @pytest.mark.parametrize("resize", ["nearest", "bilinear", "bicubic", "lanczos"])
    @pytest.mark.parametrize("keep", [False, True])
    def test_stretch_and_crop_do_what_keras_does(self, resize: Resize, keep: bool) -> None:
        """Pillow's calls in ``keras.utils.load_img(target_size=(20, 30), interpolation=…, keep_aspect_ratio=…)``."""
        picture = photograph(61, 47)
        box = (0, (47 - 61 * 20 // 30) // 2, 61, (47 - 61 * 20 // 30) // 2 + 61 * 20 // 30) if keep else None
        expected = picture.resize((30, 20), module._FILTERS[resize], box=box)
        array = pixels(encoded(picture), (20, 30), resize=resize, fit="crop" if keep else "stretch")
        assert (array == np.asarray(expected)).all()

    def test_crop_keeps_the_middle(self) -> None:
        image = Image.new("RGB", (90, 30), RED)
        image.paste(WHITE, (30, 0, 60, 30))
        assert one_colour(pixels(encoded(image), (10, 10), fit="crop")) == WHITE

    def test_pad_keeps_everything_on_black(self) -> None:
        array = pixels(encoded(Image.new("RGB", (90, 30), WHITE)), (30, 30), fit="pad")
        assert one_colour(array[10:20]) == WHITE
        assert one_colour(array[:10]) == one_colour(array[20:]) == BLACK

    @pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
    @pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3)])
    def test_extreme_shapes_still_fit(self, fit: str, size: tuple[int, int]) -> None:
        assert pixels(encoded(Image.new("RGB", size, RED)), (7, 9), fit=fit).shape == (7, 9, 3)

    def test_a_size_that_is_there_already_changes_nothing(self) -> None:
        assert (pixels(encoded(photograph(30, 20)), (20, 30), resize="lanczos") == np.asarray(photograph(30, 20))).all()


class TestDraft:
    @pytest.mark.parametrize(
        ("width", "height", "size", "scale"),
        [
            (400, 400, (100, 100), 2),
            (399, 400, (100, 100), 1),
            (400, 399, (100, 100), 1),
            (800, 800, (100, 100), 4),
            (1600, 1600, (100, 100), 8),
            (5000, 5000, (10, 10), 8),
            (800, 400, (100, 200), 2),
            (800, 400, (200, 100), 1),
        ],
    )
    def test_the_scale_leaves_twice_what_is_needed(
        self, width: int, height: int, size: tuple[int, int], scale: int
    ) -> None:
        header = module._open(encoded(Image.new("L", (width, height)), "JPEG"), "JPEG")
        assert module._draft_scale(header, PixelSpec(size)) == scale
        assert module._draft_scale(header, PixelSpec(size, "nearest")) == 1

    def test_a_sideways_picture_is_measured_upright(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        header = module._open(encoded(Image.new("L", (800, 400)), "JPEG", exif=exif), "JPEG")
        assert module._draft_scale(header, PixelSpec((200, 100))) == 2
        assert module._draft_scale(header, PixelSpec((100, 200))) == 1

    def test_pixels_do_not_depend_on_what_else_is_wanted(self) -> None:
        data = encoded(photograph(640, 480), "JPEG")
        specs = [
            PixelSpec((30, 40)),
            PixelSpec((200, 200)),
            PixelSpec((30, 40), "nearest"),
            PixelSpec((60, 60), "lanczos"),
        ]
        for together, spec in zip(decode(data, specs), specs, strict=True):
            assert (together == decode(data, [spec])[0]).all()

    def test_a_draft_shows_the_same_picture(self) -> None:
        data = encoded(photograph(1600, 1200), "JPEG", quality=95)
        exact = Image.open(io.BytesIO(data)).convert("RGB").resize((80, 60), Image.Resampling.BILINEAR)
        assert np.abs(pixels(data, (60, 80), resize="bilinear").astype(int) - np.asarray(exact)).max() <= 3

    def test_the_file_is_decoded_once_for_specs_of_one_scale(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[int] = []
        load = module._load
        monkeypatch.setattr(module, "_load", lambda image, scale: calls.append(scale) or load(image, scale))
        decode(encoded(photograph(640, 480), "JPEG"), [PixelSpec((30, 40)), PixelSpec((20, 40)), PixelSpec((300, 300))])
        assert sorted(calls) == [1, 8]

    @pytest.mark.parametrize(("kind", "scales"), [("JPEG", [1, 2, 4, 8]), ("PNG", [1]), ("WEBP", [1])])
    def test_it_is_decoded_four_times_at_most_whatever_is_wanted(
        self, kind: str, scales: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[int] = []
        load = module._load
        monkeypatch.setattr(module, "_load", lambda image, scale: calls.append(scale) or load(image, scale))
        sizes = [(height, width) for height in range(4, 200, 9) for width in (5, 30, 99)]
        decode(encoded(photograph(640, 480), kind), [PixelSpec(size, "bilinear") for size in sizes])
        assert sorted(calls) == scales


class TestCost:
    def test_tiles_change_no_pixel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x, y = np.meshgrid(np.arange(61), np.arange(47))
        grey = Image.fromarray(((x * y) % 256).astype(np.uint8))
        palette = photograph(61, 47).quantize(50)
        pictures = [
            encoded(Image.merge("RGBA", [*photograph(61, 47).split(), grey])),
            encoded(Image.merge("LA", [photograph(61, 47).convert("L"), grey])),
            encoded(palette, transparency=bytes(range(0, 250, 5))),
            encoded(palette, "GIF", transparency=3),
            encoded(photograph(61, 47), transparency=photograph(61, 47).getpixel((9, 9))),
            encoded(grey, transparency=7),
            encoded(Image.fromarray((x * y * 20).astype(np.uint16))),
        ]
        whole = [pixels(data, (47, 61)) for data in pictures]
        monkeypatch.setattr(module, "_TILE", 13)
        for data, one in zip(pictures, whole, strict=True):
            assert (pixels(data, (47, 61)) == one).all()

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK"])
    def test_what_is_no_longer_needed_of_a_picture_is_let_go(self, mode: str) -> None:
        kind = "JPEG" if mode == "CMYK" else "PNG"
        opened = module._open(encoded(Image.new(mode, (8, 4)), kind, exif=turned()), kind)
        assert module._load(opened, 1).size == (4, 8)
        with pytest.raises(ValueError, match="closed"):
            opened.getpixel((0, 0))

    def test_a_shortage_of_memory_is_never_the_fault_of_the_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def short(_image: object, _scale: int) -> Image.Image:
            raise MemoryError

        monkeypatch.setattr(module, "_load", short)
        assert reason_for(encoded(photograph())) == Reason.UNREADABLE


class TestDamage:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
    def test_a_truncated_file_is_rejected_with_its_reason(self, kind: str) -> None:
        data = encoded(Image.effect_noise((64, 64), 50).convert("RGB"), kind)
        assert reason_for(data[: len(data) // 2]) == Reason.TRUNCATED

    def test_a_png_with_damaged_pixels_is_corrupt(self) -> None:
        data = bytearray(encoded(Image.effect_noise((64, 64), 50)))
        at = data.index(b"IDAT") + 4
        data[at : at + 2] = b"\0\0"
        assert reason_for(bytes(data)) == Reason.CORRUPT

    def test_a_png_changed_by_a_text_transfer_is_corrupt_and_a_picture_still(self) -> None:
        assert reason_for(encoded(photograph()).replace(b"\r\n", b"\n")) == Reason.CORRUPT

    @pytest.mark.parametrize(
        "error",
        [OSError, ValueError, SyntaxError, struct.error, IndexError, KeyError, RecursionError, zlib.error, Warning],
    )
    def test_whatever_pillow_raises_becomes_a_reject(
        self, error: type[Exception], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(_data: object) -> ImageFile.ImageFile:
            raise error("some\n  words")

        monkeypatch.setitem(module._OPENERS, "PNG", broken)
        assert reason_for(encoded(photograph())) == Reason.CORRUPT

    def test_an_interrupt_is_not_a_reject(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(_data: object) -> ImageFile.ImageFile:
            raise KeyboardInterrupt

        monkeypatch.setitem(module._OPENERS, "PNG", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pixels(encoded(photograph()))

    def test_truncated_pictures_accepted_elsewhere_would_poison_the_store(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        with pytest.raises(InputError, match="truncated"):
            pixels(encoded(photograph()))

    @settings(max_examples=150, deadline=None)
    @given(
        kind=st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "GIF"]),
        edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
        cut=st.integers(0, 10_000),
    )
    def test_no_damage_ends_in_anything_but_pixels_or_a_reject(
        self, kind: str, edits: list[tuple[int, int]], cut: int
    ) -> None:
        data = bytearray(encoded(photograph(20, 12), kind))
        for at, value in edits:
            data[at % len(data)] = value
        damaged = bytes(data[: max(1, len(data) - cut % 40)])
        said = outcome(damaged)
        assert said[0].isdigit() or said.split(":")[0] in {reason.code for reason in Reason}
        assert not said.startswith(Reason.UNREADABLE.code)


class TestWarnings:
    @pytest.fixture
    def noisy(self, monkeypatch: pytest.MonkeyPatch) -> bytes:
        def warn(data: io.BytesIO) -> ImageFile.ImageFile:
            warnings.warn("odd but good", UserWarning, stacklevel=1)
            return module.PngImageFile(data)

        monkeypatch.setitem(module._OPENERS, "PNG", warn)
        return encoded(photograph())

    def test_a_warning_neither_escapes_nor_becomes_an_error(self, noisy: bytes) -> None:
        for action in ("always", "error"):
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter(action)  # type: ignore[arg-type]
                assert pixels(noisy).shape == (4, 4, 3)
            assert seen == []

    def test_scikit_learn_can_use_processes_afterwards(self) -> None:
        """Its Parallel, and so GridSearchCV(n_jobs=2), sends every warning filter to its workers."""
        before = list(warnings.filters)
        decode(encoded(photograph()), [PixelSpec((8, 8))])
        assert warnings.filters == before
        assert Parallel(n_jobs=2)([delayed(abs)(-1)]) == [1]

    def test_other_threads_keep_their_warnings(self) -> None:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            with module._quiet(), ThreadPoolExecutor(1) as other:
                warnings.warn("hushed", stacklevel=1)
                other.submit(warnings.warn, "mine").result()
        assert [str(w.message) for w in seen] == ["mine"]

    def test_a_warning_after_decoding_is_seen(self, noisy: bytes) -> None:
        pixels(noisy)
        with pytest.warns(UserWarning, match="after"):
            warnings.warn("after", UserWarning, stacklevel=1)


def outcome(data: bytes) -> str:
    specs = [PixelSpec((32, 32)), PixelSpec((20, 30), "lanczos", "crop"), PixelSpec((16, 16), "nearest", "pad")]
    try:
        return " ".join(str(zlib.crc32(array.tobytes())) for array in decode(data, specs))
    except Rejected as reject:
        return str(reject)


class TestOddImages:
    def test_each_is_decoded_or_rejected_and_alike_in_threads(self, odd_images: Path) -> None:
        files = sorted(f for f in odd_images.rglob("*") if f.is_file())
        contents = [f.read_bytes() for f in files]
        alone = [outcome(data) for data in contents]
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(outcome, contents)) == alone
        decoded = {f.name for f, said in zip(files, alone, strict=True) if said[0].isdigit()}
        suite = {f.name for f in files if f.parent.name == "pngsuite" and f.suffix == ".png"}
        assert {name for name in suite - decoded if not name.startswith("x")} == set()
        assert {name for name in suite & decoded if name.startswith("x")} == {"xcsn0g01.png"}
        assert "truncated_jpeg.jpg" not in decoded
        assert "hopper.webp" in decoded

    @pytest.mark.parametrize("resize", ["nearest", "bilinear"])
    def test_a_photograph_equals_keras(self, photographs: Path, resize: Resize) -> None:
        for file in sorted((photographs / "test" / "cats").iterdir())[:20]:
            expected = Image.open(file).convert("RGB").resize((150, 150), module._FILTERS[resize])
            assert (pixels(file.read_bytes(), (150, 150), resize=resize) == np.asarray(expected)).all()


def test_the_module_loads_no_framework() -> None:
    code = "import sys, featstore.decode; print([m for m in ('keras', 'h5py', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- thumbnails ------------------------------------------------------------------------------------------------------


def test_a_thumbnail_is_a_small_upright_jpeg_of_the_pictures_own_shape() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    with Image.open(io.BytesIO(thumbnail(encoded(photograph(400, 200), "JPEG", exif=exif), 100))) as small:
        assert (small.format, small.size) == ("JPEG", (50, 100))


def test_a_thumbnail_never_enlarges_and_lays_what_is_transparent_on_white() -> None:
    with Image.open(io.BytesIO(thumbnail(encoded(Image.new("RGBA", (20, 10), (255, 0, 0, 0))), 100))) as small:
        assert small.size == (20, 10)
        assert np.asarray(small).min() > 250


def test_a_thumbnail_has_no_comment_however_long_that_of_the_picture_is() -> None:
    written = io.BytesIO()
    Image.new("RGB", (40, 30)).save(written, "GIF", comment=b"x" * 70_000)
    small = Image.open(io.BytesIO(thumbnail(written.getvalue(), 16)))
    assert (small.size, "comment" in small.info) == ((16, 12), False)


def test_no_picture_has_no_thumbnail() -> None:
    with pytest.raises(Rejected):
        thumbnail(b"no picture", 100)
