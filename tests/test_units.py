import pytest

from dynamicrafter.errors import InputError
from dynamicrafter.units import parse_memory


def test_sizes_of_memory():
    assert [parse_memory(text) for text in ("24GB", "80GiB", "1.5 g")] == [24 * 10**9, 80 * 2**30, 15 * 10**8]
    for text in ("lots", "0GB", "-3GB", "24MB"):
        with pytest.raises(InputError, match="memory must be a size"):
            parse_memory(text)
