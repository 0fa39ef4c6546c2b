"""Makes arpeggio.ogg, twelve seconds of plucked sines, so that the story has a sound of its own.

python examples/story/make_arpeggio.py OUT.ogg
"""

from __future__ import annotations

import sys
from fractions import Fraction

import av
import numpy as np

RATE, BEAT, BLOCK = 48_000, 0.3, 960  # samples a second, seconds, samples that Opus takes at a time
CHORDS = (  # Hz
    (146.83, 220.00, 293.66, 349.23),
    (174.61, 220.00, 261.63, 349.23),
    (130.81, 196.00, 261.63, 329.63),
    (196.00, 246.94, 293.66, 392.00),
    (174.61, 220.00, 261.63, 349.23),
    (146.83, 220.00, 293.66, 349.23),
)
ORDER = (0, 1, 2, 3, 2, 1)  # of a chord's notes


def plucked(frequency: float) -> np.ndarray:
    """One and a half seconds of a note and its overtones, dying away."""
    t = np.arange(int(1.5 * RATE)) / RATE
    overtones = sum(np.sin(2 * np.pi * frequency * k * t) / k**2 for k in (1, 2, 3))
    return 0.2 * overtones * np.exp(-3 * t) * np.minimum(1, 200 * t)


def arpeggio() -> np.ndarray:
    """The notes one after the other, swaying from left to right: (2, samples)."""
    notes = [chord[index] for chord in CHORDS for index in ORDER]
    samples = np.zeros((2, int((len(notes) * BEAT + 1.5) * RATE)))
    for number, frequency in enumerate(notes):
        start, note, side = int(number * BEAT * RATE), plucked(frequency), 0.5 + 0.25 * np.sin(number)
        samples[:, start : start + len(note)] += np.outer((1 - side, side), note)
    return samples


def main(target: str) -> None:
    samples = arpeggio().astype(np.float32)
    with av.open(target, "w") as container:
        stream = container.add_stream("libopus", rate=RATE, layout="stereo")
        stream.bit_rate = 64_000
        for start in range(0, samples.shape[1] - BLOCK + 1, BLOCK):
            packed = np.ascontiguousarray(samples[:, start : start + BLOCK].T.reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(packed, format="flt", layout="stereo")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "arpeggio.ogg")
