"""Settings of the latents: what is encoded."""

from typing import ClassVar

from rissole.core.config import Section


class LatentsSettings(Section):
    """Section `latents`: what is encoded."""

    SECTION: ClassVar[str] = "latents"

    mirrors: bool
