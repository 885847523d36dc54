"""The settings of a simulator: frozen dataclasses in which every number says what it accepts."""

import dataclasses
import math
from typing import Any, ClassVar, NoReturn, TypeVar

from pipeline_lib.errors import InputError, suggest

S = TypeVar("S", bound="SimulatorSettings")


def number(default: Any, least: float = -math.inf, most: float = math.inf, above: float = -math.inf) -> Any:
    """A field of a settings class: `least` <= value <= `most`, and value > `above`."""
    return dataclasses.field(default=default, metadata={"least": least, "most": most, "above": above})


@dataclasses.dataclass(frozen=True)
class SimulatorSettings:
    """What every simulator's settings share: checks of type and range, and construction from a config block."""

    NAME: ClassVar[str]
    CITATION: ClassVar[str]
    """The paper that the simulator follows."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not _accepts(field, value):
                self.refuse(field.name, value, _accepted(field))

    def refuse(self, field: str, found: object, accepted: str) -> NoReturn:
        """Raise InputError about one field of these settings."""
        raise InputError(f"simulator {self.NAME}", field, found, accepted)

    @classmethod
    def from_dict(cls: type[S], values: dict[str, Any]) -> S:
        """The settings of a config block; InputError names an unknown key and the nearest known one."""
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise InputError(f"simulator {cls.NAME}", str(key), "an unknown setting", suggest(str(key), known))
        return cls(**values)


def _accepts(field: dataclasses.Field, value: Any) -> bool:
    if field.type is bool or isinstance(value, bool):
        return field.type is bool and isinstance(value, bool)
    if not isinstance(value, int if field.type is int else (int, float)) or not math.isfinite(value):
        return False
    rule = field.metadata
    return rule["least"] <= value <= rule["most"] and value > rule["above"]


def _accepted(field: dataclasses.Field) -> str:
    if field.type is bool:
        return "true or false"
    words = {"least": "not below", "above": "above", "most": "not above"}
    bounds = [f"{word} {field.metadata[key]:g}" for key, word in words.items() if math.isfinite(field.metadata[key])]
    return f"{'a whole number' if field.type is int else 'a number'} {' and '.join(bounds)}".strip()
