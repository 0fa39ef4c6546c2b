"""Options that go with one kind of model and not with another."""

import pytest

from dynamicrafter import DynamiCrafterPipeline
from dynamicrafter.errors import InputError
from tiny import pipeline


@pytest.mark.parametrize("option", ["preset", "encoders"])
def test_what_only_a_file_needs_is_refused_elsewhere(tmp_path, option):
    pipeline("tiny512").save_pretrained(tmp_path / "model")
    for name in (str(tmp_path / "model"), "seeded:tiny"):
        with pytest.raises(InputError, match=f"{option} goes with a checkpoint file"):
            DynamiCrafterPipeline.from_pretrained(name, **{option: "512"})


def test_unknown_options_of_a_model_are_refused():
    with pytest.raises(InputError, match="seeded:tiny takes no option 'revision'"):
        DynamiCrafterPipeline.from_pretrained("seeded:tiny", revision="main")
