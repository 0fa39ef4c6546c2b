import json

import pytest

from dynamicrafter.data.motion_words import motion_by_rules
from dynamicrafter.data.motions import SURE, WHAT_MOVES, check_motion, parse_answer

CAPTION = "Aerial view of a man walking on the beach at sunset"


@pytest.mark.parametrize(
    ("caption", "source", "wording"),
    [
        (CAPTION, "person", "man walking on the beach at sunset"),
        (
            "The camera slowly pans across the city, cars driving by.",
            "camera",
            "The camera slowly pans across the city",
        ),
        ("Zoom in on an old map", "camera", "Zoom in"),
        ("panning left over a lake", "camera", "panning left"),
        ("A dog runs through tall grass while a boy follows", "animal", "dog runs through tall grass"),
        ("Autumn: leaves swaying in the wind", "nature", "leaves swaying in the wind"),
        ("Red sports car driving fast on a road", "vehicle", "Red sports car driving fast on a road"),
        ("people walk", "person", "people walk"),
        ("a wheel rotating", "object", "wheel rotating"),
    ],
)
def test_rules_find_what_moves_and_the_words_that_say_it(caption, source, wording):
    motion = motion_by_rules(caption)
    assert (motion.source, motion.wording) == (source, wording)
    assert motion.confidence > SURE


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a bowl of fruit on a table",
        "woman in a swimming pool",
        "new running shoes on a shelf",
        "a walk in the park",
        "Close up of vegetables on a cutting board",
        "Set of icons on a white background",
        "ski resort",
    ],
)
def test_rules_are_not_sure_of_motion_where_there_is_none(caption):
    assert motion_by_rules(caption).confidence < SURE


def test_ing_says_motion_more_surely_than_the_plain_word():
    forms = ("ducks swimming", "the duck swims", "ducks swim", "swim")
    confidences = [motion_by_rules(caption).confidence for caption in forms]
    assert confidences == sorted(confidences, reverse=True)
    assert len(set(confidences)) == 4


def test_what_rules_find_would_pass_for_a_models_answer():
    for caption in (
        CAPTION,
        "x",
        "Waves crash on rocks; a child runs",
        "He's “dancing, spinning” (slowly)",
        "ZOOM OUT",
    ):
        motion = motion_by_rules(caption)
        assert motion.source in WHAT_MOVES
        assert check_motion(motion.confidence, motion.wording, motion.source, caption=caption) == motion


def answer(confidence=90, wording="man walking", source="person"):
    return json.dumps({"dynamic_confidence": confidence, "dynamic_wording": wording, "dynamic_source_category": source})


@pytest.mark.parametrize("text", [answer(), f"```json\n{answer()}\n```", f"```{answer()}```", f"  {answer()}\n"])
def test_a_models_answer_is_read(text):
    assert parse_answer(text, CAPTION).cells() == ("90", "man walking", "person")


def test_a_wording_may_inflect_the_captions_words():
    assert parse_answer(answer(wording="a man walks along the beach"), CAPTION).wording == "a man walks along the beach"
    assert parse_answer(answer(0, "", "none"), CAPTION).cells() == ("0", "", "none")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The man is walking.", "no JSON"),
        (f"Sure! {answer()}", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[1, 2, 3]", "not the three fields"),
        ('{"dynamic_confidence": 3}', "not the three fields"),
        (answer()[:-1] + ', "more": 1}', "not the three fields"),
        (answer("90"), "the confidence is no number"),
        (answer(True), "the confidence is no number"),
        (answer(101), "the confidence is not 0 to 100"),
        (answer(-1), "the confidence is not 0 to 100"),
        (answer(float("nan")), "the confidence is not 0 to 100"),
        (answer(source="ghost"), "the source is none of those asked for"),
        (answer(source=["person"]), "the source is none of those asked for"),
        (answer(wording=None), "the wording is no text"),
        (answer(wording=""), "wording and source disagree whether anything moves"),
        (answer(source="none"), "wording and source disagree whether anything moves"),
        (answer(90, "", "none"), "it is sure of motion and names none"),
        (answer(wording="a dragon soaring through clouds"), "the wording is not the caption's"),
        (answer(wording="man walking " * 10), "the wording is not the caption's"),
    ],
)
def test_a_bad_answer_is_refused_with_its_reason(text, reason):
    with pytest.raises(ValueError) as caught:
        parse_answer(text, CAPTION)
    assert str(caught.value) == reason
