"""Settings of the encoder: what sees an image as a whole."""

from typing import Annotated, ClassVar, Literal

from rissole.core.config import Section

from pydantic import Field, model_validator


class EncoderSettings(Section):
    """Section `encoder`: what sees an image as a whole."""

    SECTION: ClassVar[str] = "encoder"

    kind: Literal["efficientnet_lite0", "clip"]
    weights: str | None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    size: Annotated[int, Field(ge=64)]

    @model_validator(mode="after")
    def _possible(self):
        if self.kind == "clip" and self.weights is None:
            raise ValueError("weights: the folder of its config.json and model.safetensors")
        if self.kind == "clip" and self.sha256 is None:
            raise ValueError("sha256: that of model.safetensors is needed, from who published it")
        return self
