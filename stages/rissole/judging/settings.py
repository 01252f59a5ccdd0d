"""Settings of the judges: the networks whose features the scores compare."""

from typing import Annotated, ClassVar

from rissole.core.config import Positive, Section

from pydantic import Field


class JudgeSettings(Section):
    """Section `judge`: the networks whose features the scores compare."""

    SECTION: ClassVar[str] = "judge"

    size: Annotated[int, Field(ge=64)]
    inception: str | None
    batch: Positive
