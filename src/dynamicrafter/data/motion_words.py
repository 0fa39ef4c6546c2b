"""Motion in captions by rules: words of motion, the phrase around them, and the noun before them.

It takes no model and no network, and sees only what its lists name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dynamicrafter.data.motions import NO_MOTION, Motion

_CAMERA_SURE, _CAMERA_LIKELY = 95, 60
# By ending, alone and behind what can move: "walking" is nearly always motion, "a walk" is not and "people walk" is.
_ALONE = {"ing": 85, "s": 60, "": 25}
_WITH_MOVER = {"ing": 95, "s": 85, "": 65}
_BEFORE, _AFTER = 4, 6  # words of the phrase on either side

_CAMERA = (
    (r"(the )?camera \w+( \w+){0,4}", _CAMERA_SURE),
    (r"(slow |fast |smooth )?pan(s|ning)?( shot)?( (to the )?(left|right|up|down|across|over|around)\b)", _CAMERA_SURE),
    (r"(slow(ly)? |fast |smooth )?zoom(s|ing)?( (in|out|to|into))?", _CAMERA_SURE),
    (r"tilt(s|ing)? (up|down)", _CAMERA_SURE),
    (r"dolly( (in|out|shot|zoom))?|tracking shot|panning shot|crane shot|slider shot|orbit(s|ing)? (around|shot)", 95),
    (r"(aerial|drone)( (view|shot|footage|video|flight))? (flying|moving) (over|above|around|along|through)", 95),
    (r"fly(ing)? ?over|flyover|fly ?through|flight over|hyper ?lapse|handheld (shot|camera)", _CAMERA_LIKELY),
)
_MOVERS = {
    "person": """man men woman women boy boys girl girls child children kid kids baby toddler people person crowd
        couple family friends player players dancer dancers runner runners worker workers tourist tourists surfer skier
        cyclist athlete bride groom mother father doctor chef student students hand hands businessman businesswoman
        pedestrians soldier soldiers he she they""",
    "animal": """dog dogs cat cats horse horses bird birds fish fishes cow cows sheep duck ducks bee bees butterfly
        elephant lion tiger bear monkey whale dolphin dolphins shark turtle deer squirrel rabbit goat swan swans
        seagull seagulls insect ant ants spider snake puppy kitten penguin jellyfish chicken""",
    "vehicle": """car cars truck trucks bus buses train trains tram bike bikes bicycle motorcycle boat boats ship
        ships yacht plane planes airplane aircraft helicopter rocket traffic taxi vehicle vehicles ferry tractor van
        scooter subway""",
    "nature": """water wave waves sea ocean river stream waterfall cloud clouds smoke fire flame flames steam fog snow
        rain raindrops lava leaf leaves grass tree trees branches flower flowers wind sand sun moon stars lightning
        lake surf bubbles snowflakes aurora""",
}
_MOTION = {
    "person": """walk run jump dance jog climb wave clap hug kiss nod stretch exercise throw kick ride cook paint knit
        type write drink eat smile laugh talk cut stir pour shake wash dig skate ski surf row""",
    "animal": "gallop graze crawl hop wag flap peck swim trot",
    "vehicle": "drive accelerate brake sail park taxi land",
    "nature": """flow ripple sway fall blow burn flicker drip melt bloom splash boil erupt crash swirl billow flutter
        rain snow glow flash""",
    "object": """move drift rise rotate spin turn swing fly float roll slide bounce open close explode approach pass
        travel circle chase follow scatter shoot vibrate tumble sink enter leave cross stream rush hover orbit morph""",
}
_NOT_MOTION = re.compile(
    r"\b(swimming (pool|suit)|(running|walking|dancing|climbing|riding|skating|ski) (shoes?|boots?|stick|track|pants)"
    r"|washing machine|rolling (pin|hills?)|opening hours|closing time|parking (lot|space|meter)"
    r"|(driving|flying) licen[cs]e|writing (desk|paper)|cutting board|typing machine|sets? of|set up"
    r"|open (air|space|mind)|turning point|close ?-? ?up|landing page|painting of|on the left|left side|crossroads?)\b"
)
_ENDS_PHRASE = frozenset(("while", "when", "as"))
_LEADING = frozenset(
    word.group()
    for word in re.finditer(
        r"\w+", "a an the of in on at with and or to from by is are its his her their for this that"
    )
)


@dataclass(frozen=True, slots=True)
class _Found:
    motion: Motion
    place: int


def motion_by_rules(caption: str) -> Motion:
    """Find the surest motion that a caption names; of equally sure ones, the first."""
    found = [*_camera_motions(caption), *_verb_motions(caption)]
    best = min(found, key=lambda one: (-one.motion.confidence, one.place), default=None)
    return NO_MOTION if best is None else best.motion


def _camera_motions(caption: str) -> Iterator[_Found]:
    for pattern, confidence in _CAMERA:
        match = re.search(rf"\b({pattern})\b", caption, flags=re.IGNORECASE)
        if match:
            yield _Found(Motion(confidence, match[0], "camera"), match.start())


def _verb_motions(caption: str) -> Iterator[_Found]:
    hidden = _NOT_MOTION.sub(lambda match: "·" * len(match[0]), caption.lower())
    for clause in re.finditer(r"[^,.;:!?()\"“”]+", caption):
        words = list(re.finditer(r"[\w'’-]+", clause[0]))
        for place, word in enumerate(words):
            start = clause.start() + word.start()
            known = _FORMS.get(hidden[start : start + len(word[0])])
            if known is not None:
                default, ending = known
                before = [w[0].lower() for w in words[max(0, place - _BEFORE) : place]]
                mover = next((_MOVER_OF[name] for name in reversed(before) if name in _MOVER_OF), None)
                sure = (_WITH_MOVER if mover else _ALONE)[ending]
                yield _Found(Motion(sure, _phrase(clause[0], words, place), mover or default), start)


def _phrase(clause: str, words: list[re.Match[str]], place: int) -> str:
    """The words about a word of motion, from what moves to where."""
    first, last = max(0, place - _BEFORE), min(len(words) - 1, place + _AFTER)
    told = [word[0].lower() for word in words]
    last = next((i - 1 for i in range(place + 1, last + 1) if told[i] in _ENDS_PHRASE), last)
    for i in range(first, place):
        if told[i] == "of" and any(word in _MOVER_OF for word in told[i + 1 : place]):
            first = i + 1  # a view of a man walking
    while first < place and told[first] in _LEADING:
        first += 1
    while last > place and told[last] in _LEADING:
        last -= 1
    return clause[words[first].start() : words[last].end()]


def _forms(verb: str) -> Iterator[tuple[str, str]]:
    """walk, walks, walking; ride, riding; run, running; each with its ending."""
    yield verb, ""
    yield verb + ("es" if re.search(r"(s|sh|ch|x|z|o)$", verb) else "s"), "s"
    if re.search(r"[^e]e$", verb):
        yield verb[:-1] + "ing", "ing"
    elif re.search(r"^[^aeiou]*[aeiou][^aeiouwxy]$", verb):
        yield verb + verb[-1] + "ing", "ing"
    else:
        yield verb + "ing", "ing"


_MOVER_OF = {name: source for source, names in _MOVERS.items() for name in names.split()}
_FORMS = {
    form: (source, ending)
    for source, verbs in _MOTION.items()
    for verb in verbs.split()
    for form, ending in _forms(verb)
    if form not in _MOVER_OF
} | {"flies": ("object", "s"), "carries": ("person", "s"), "carrying": ("person", "ing")}
