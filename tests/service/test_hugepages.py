"""Huge pages change where the memory of a process lies, and nothing that is in it."""

import numpy as np

from service.hugepages import use_huge_pages


def test_what_is_in_the_memory_stays() -> None:
    values = np.random.default_rng(5).random(3_000_000)
    before = values.copy()
    use_huge_pages()
    np.testing.assert_array_equal(values, before)
