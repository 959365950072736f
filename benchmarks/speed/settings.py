"""What a run holds fixed, and what one worker is told."""

import json
from dataclasses import asdict, dataclass, fields

from genoscan.errors import InputError

REGION = 2_114
"""Bases of a region among many: what ChromBPNet's tools read."""


@dataclass(frozen=True)
class Settings:
    """The same for every contender and row.

    model     folder that all weights come from
    genome    file that all bases come from
    device    cpu, cuda or cuda:1
    threads   CPU threads of a contender, where a row does not say otherwise
    tile      bases processed at once, in every row
    slots     carries remembered; None: one a tile
    batch     windows read side by side, where there are many
    regions   regions in the row that has many
    rounds    repetitions of each contender, in turn
    length    bases in every row; None: each row's own, for which its bars were set
    kernels   kernel set of our own contenders, a name that `choose` knows
    """

    model: str
    genome: str
    device: str
    threads: int
    tile: int
    slots: int | None
    batch: int
    regions: int
    rounds: int
    length: int | None = None
    kernels: str = "auto"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 1:
                raise InputError(f"--{field.name} {value}: expected at least 1")

    def slots_for(self, length: int) -> int:
        """Return how many carries are remembered over a window."""
        return self.slots or -(-length // self.tile)

    @property
    def region(self) -> int:
        """Bases of a region, where there are many."""
        return min(REGION, self.length or REGION)

    @property
    def cuda(self) -> bool:
        return self.device != "cpu"


@dataclass(frozen=True)
class Task:
    """One contender on so many bases."""

    contender: str
    length: int
    settings: Settings

    def dump(self) -> str:
        """Return the task as one line."""
        return json.dumps(asdict(self))

    @staticmethod
    def load(line: str) -> "Task":
        """Read what `dump` wrote."""
        record = json.loads(line)
        return Task(record["contender"], record["length"], Settings(**record["settings"]))
