"""Streams of the host are apart: by seed, by name and by index."""

import numpy as np
import pytest

from jaxkd.core.random import numpy_stream


@pytest.mark.parametrize("other", [(0, "a", 8), (0, "a", 7 + 2**20), (1, "a", 7), (0, "b", 7)])
def test_no_stream_is_a_part_of_another(other):
    """A counter's lowest word as the index would make stream i + 1 stream i four draws on."""
    first, second = (numpy_stream(*of).integers(2**60, size=4096) for of in ((0, "a", 7), other))
    assert not np.isin(first, second).any()


def test_the_same_stream_is_the_same_again():
    first, second = (numpy_stream(3, "a", 5).random(8) for _ in range(2))
    np.testing.assert_array_equal(first, second)
