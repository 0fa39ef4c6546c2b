"""A small picture of the clip as it forms: a few frames of what the last step took for the clean clip.

Decoding draws no random number and changes no latent, so that a clip comes out the same with and without.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

    from dynamicrafter.pipeline import DynamiCrafterPipeline

NUM_FRAMES = 4
LONGEST_LATENT = 32  # latents along a side: 256 pixels of the published autoencoder
FRAME_HEIGHT = 112  # pixels on the page
LEAST_PAUSE = 0.7  # seconds
MOST_SHARE = 0.1  # of the run's time

Show = Callable[[str], None]


class Previewer:
    """Called after every step of a run; now and then it shows a strip of frames.

    Args:
        pipeline: decodes.
        show: gets the strip as a `data:` address.
        clock: seconds that only grow.
    """

    def __init__(
        self, pipeline: DynamiCrafterPipeline, show: Show, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pipeline, self._show, self._clock = pipeline, show, clock
        self._due = clock() + LEAST_PAUSE

    def __call__(self, denoised: Tensor) -> None:
        """Args: denoised: (b, 4, f, h, w), of which the first clip is shown."""
        began = self._clock()
        if began < self._due or self._would_move():
            return
        self._show(data_address(self._strip(denoised[:1])))
        ended = self._clock()
        self._due = ended + max(LEAST_PAUSE, (ended - began) / MOST_SHARE)

    def _would_move(self) -> bool:
        """Whether networks come to the device one after the other; a strip would move them twice."""
        plan = self._pipeline.offloader.plan
        return bool(getattr(self._pipeline, "_all_hooks", []) or (plan is not None and plan.leaving))

    def _strip(self, latents: Tensor) -> Image.Image:
        import torch.nn.functional as F

        from dynamicrafter.media.framing import to_uint8

        count = latents.shape[2]
        chosen = sorted({round(place * (count - 1) / (NUM_FRAMES - 1)) for place in range(NUM_FRAMES)})
        few = latents[0, :, chosen].transpose(0, 1)  # (f, 4, h, w)
        factor = -(-max(few.shape[-2:]) // LONGEST_LATENT)
        if factor > 1:
            few = F.avg_pool2d(few, factor, ceil_mode=True)
        video = self._pipeline.decode_latents(few.transpose(0, 1)[None])
        return side_by_side([Image.fromarray(frame) for frame in to_uint8(video)[0]])


def side_by_side(frames: list[Image.Image], *, height: int = FRAME_HEIGHT, gap: int = 4) -> Image.Image:
    """Frames of one size in a row, scaled to a height in pixels."""
    width = max(1, round(frames[0].width * height / frames[0].height))
    strip = Image.new("RGB", (len(frames) * (width + gap) - gap, height), "white")
    for place, frame in enumerate(frames):
        strip.paste(frame.resize((width, height), Image.Resampling.BILINEAR), (place * (width + gap), 0))
    return strip


def data_address(picture: Image.Image) -> str:
    """A picture as a JPEG inside an address, which needs no file and no route."""
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
