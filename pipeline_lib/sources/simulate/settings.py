"""What the settings of every simulator share; `parsing.parse` makes them of a block of the configuration."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, NoReturn

from pydantic import Strict

from pipeline_lib.errors import InputError

Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Flag = Annotated[bool, Strict()]
"""Kinds of settings; strict: `true` is no number, and "20" is text."""


@dataclass(frozen=True)
class SimulatorSettings:
    """A frozen dataclass in which every number says what it accepts."""

    __pydantic_config__: ClassVar = {"allow_inf_nan": False}
    NAME: ClassVar[str]
    CITATION: ClassVar[str]
    """The paper that the simulator follows."""

    def refuse(self, field: str, found: object, accepted: str) -> NoReturn:
        """Raise InputError about one field of these settings."""
        raise InputError(f"simulator {self.NAME}", field, found, accepted)
