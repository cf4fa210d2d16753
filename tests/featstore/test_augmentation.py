from __future__ import annotations

import hashlib
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featstore.augmentation import (
    POLICIES,
    FillMode,
    Policy,
    Transformation,
    augment,
    draw,
    parse_policy,
    transformed,
)
from featstore.errors import InputError

TUTORIAL = POLICIES["tutorial"]
DIGEST = bytes(range(32))


def picture(height: int = 40, width: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


class TestAView:
    def test_zero_is_the_image_itself(self) -> None:
        pixels = picture()
        assert augment(pixels, TUTORIAL, DIGEST, 0) is pixels

    def test_has_the_image_s_shape_and_memory_of_its_own(self) -> None:
        pixels = picture(30, 50)
        view = augment(pixels, TUTORIAL, DIGEST, 1)
        assert (view.shape, view.dtype) == (pixels.shape, np.uint8)
        assert view.flags.c_contiguous
        assert not np.shares_memory(view, pixels)

    def test_is_the_same_in_any_order_and_thread(self) -> None:
        pixels = picture()
        alone = [augment(pixels, TUTORIAL, DIGEST, view) for view in range(8)]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda view: augment(pixels, TUTORIAL, DIGEST, view), reversed(range(8))))
        assert all(np.array_equal(a, b) for a, b in zip(alone, reversed(together), strict=True))

    def test_is_the_same_in_another_process(self) -> None:
        code = (
            "import hashlib, numpy as np\nfrom featstore.augmentation import POLICIES, augment\n"
            "pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)\n"
            "view = augment(pixels, POLICIES['tutorial'], bytes(range(32)), 3)\n"
            "print(hashlib.sha256(view.tobytes()).hexdigest())"
        )
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        assert other == hashlib.sha256(augment(picture(), TUTORIAL, DIGEST, 3).tobytes()).hexdigest()

    @pytest.mark.parametrize(
        "other",
        [
            lambda: draw(TUTORIAL, DIGEST, 2),
            lambda: draw(TUTORIAL, DIGEST[::-1], 1),
            lambda: draw(replace(TUTORIAL, zoom_range=0.3), DIGEST, 1),
        ],
        ids=["view", "digest", "policy"],
    )
    def test_depends_on_view_digest_and_policy(self, other: Callable[[], Transformation]) -> None:
        assert other() != draw(TUTORIAL, DIGEST, 1)

    def test_stays_what_it_was_in_version_1(self) -> None:
        """These numbers name rows in people's stores: if they change, raise VIEW_VERSION."""
        drawn = draw(TUTORIAL, DIGEST, 1)
        assert drawn.rotation == pytest.approx(20.257194973528385, abs=1e-12)
        assert drawn.mirrored is True

    def test_draws_fill_their_ranges_evenly(self) -> None:
        drawn = [draw(TUTORIAL, bytes([i % 256, i // 256] * 16), 1) for i in range(2000)]
        for values, reach in (
            ([one.rotation for one in drawn], 40),
            ([one.width_shift for one in drawn], 0.2),
            ([one.height_zoom - 1 for one in drawn], 0.2),
        ):
            quarters = np.histogram(values, 4, (-reach, reach))[0]
            assert quarters.sum() == 2000
            assert quarters.min() > 400
        assert 900 < sum(one.mirrored for one in drawn) < 1100
        assert not any(one.upside_down for one in drawn)


class TestPixels:
    @pytest.mark.parametrize("fill", ["nearest", "reflect", "constant", "wrap"])
    @pytest.mark.parametrize("view", [1, 2, 3])
    def test_are_those_of_keras_to_rounding(self, fill: FillMode, view: int) -> None:
        how, pixels = replace(draw(TUTORIAL, DIGEST, view), mirrored=False), picture()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it calls SciPy by an older name
            from keras.src.legacy.preprocessing.image import apply_affine_transform

            theirs = apply_affine_transform(
                pixels.astype(np.float32), theta=how.rotation, tx=how.width_shift * 40, ty=how.height_shift * 40,
                shear=how.shear, zx=how.width_zoom, zy=how.height_zoom, row_axis=0, col_axis=1, channel_axis=2,
                fill_mode=fill, order=1,
            )  # fmt: skip
        assert np.abs(transformed(pixels, how, fill) - theirs).max() <= 0.5 + 1e-4

    def test_shift_to_the_side_that_is_asked_for(self) -> None:
        pixels = picture(20, 40)
        right = transformed(pixels, Transformation(width_shift=0.25), "constant")
        assert np.array_equal(right[:, :30], pixels[:, 10:])
        assert not right[:, 30:].any()
        down = transformed(pixels, Transformation(height_shift=0.25), "nearest")
        assert np.array_equal(down[:15], pixels[5:])
        assert (down[15:] == pixels[-1]).all()

    def test_turn_by_a_quarter(self) -> None:
        pixels = picture()
        turned = transformed(pixels, Transformation(rotation=90), "constant")
        assert any(np.array_equal(turned, np.rot90(pixels, k)) for k in (1, 3))

    def test_are_mirrored_without_loss(self) -> None:
        pixels = picture(20, 30)
        assert np.array_equal(transformed(pixels, Transformation(mirrored=True), "nearest"), pixels[:, ::-1])
        assert np.array_equal(transformed(pixels, Transformation(upside_down=True), "nearest"), pixels[::-1])

    def test_of_no_transformation_are_the_picture_s(self) -> None:
        pixels = picture(20, 30)
        assert np.array_equal(transformed(pixels, Transformation(), "nearest"), pixels)


class TestAPolicy:
    @given(
        st.builds(
            Policy,
            rotation_range=st.floats(0, 180),
            zoom_range=st.floats(0, 0.9),
            horizontal_flip=st.booleans(),
            fill_mode=st.sampled_from(["nearest", "reflect", "constant", "wrap"]),
        )
    )
    def test_survives_being_written(self, policy: Policy) -> None:
        assert Policy.from_text(policy.to_text()) == policy

    def test_is_given_by_name_or_by_its_ranges(self) -> None:
        assert parse_policy("tutorial") == TUTORIAL
        asked = parse_policy("rotation_range=20, horizontal_flip=true,fill_mode=reflect")
        assert asked == Policy(rotation_range=20.0, horizontal_flip=True, fill_mode="reflect")

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("tutorail", "did you mean"),
            ("rotation=20", "rotation_range"),
            ("rotation_range=much", "a number"),
            ("horizontal_flip=1", "true or false"),
            ("zoom_range=1.5", "0 to 0.9"),
            ("rotation_range=nan", "0 to 180"),
            ("fill_mode=mirror", "nearest, reflect, constant, wrap"),
        ],
    )
    def test_that_does_not_exist_is_refused_in_words(self, text: str, words: str) -> None:
        with pytest.raises(InputError) as refused:
            parse_policy(text)
        assert words in str(refused.value)

    @pytest.mark.parametrize(
        "text", ["", "[]", '{"version":2}', '{"version":1,"rotation_range":500}', '{"version":1,"x":1}']
    )
    def test_of_another_kind_or_version_is_refused(self, text: str) -> None:
        with pytest.raises(InputError):
            Policy.from_text(text)
