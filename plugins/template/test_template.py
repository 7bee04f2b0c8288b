import numpy as np
from mmattrib_template import load

from mmattrib.io import load_image
from mmattrib.testing import check_encoder, check_grid


def test_it_conforms():
    encoder = load()["image"]
    random = np.random.default_rng(0)
    pictures = [load_image(random.integers(0, 255, (96, 128, 3), "uint8")) for _ in range(2)]
    check_encoder(encoder, pictures)
    check_grid(encoder, pictures[0])
