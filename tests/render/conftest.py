from __future__ import annotations

import pytest
from render_examples import audio_side, image_side, pair, text_side

from mmattrib.types import Explanation


@pytest.fixture(params=["image-audio", "image-text", "audio-text"])
def explanation(request: pytest.FixtureRequest) -> Explanation:
    makers = {"image": image_side, "audio": audio_side, "text": text_side}
    return pair(*(makers[name]() for name in request.param.split("-")))
