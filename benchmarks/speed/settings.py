"""Settings of a run, and the task sent to a worker."""

import json
from dataclasses import asdict, dataclass, fields

from genoscan.errors import InputError

REGION = 2_114
"""Bases per region in rows of many regions: the input length of ChromBPNet."""


@dataclass(frozen=True)
class Settings:
    """Settings shared by all contenders and rows.

    model     model folder
    genome    FASTA or GenBank file
    device    cpu, cuda or cuda:1
    threads   CPU threads of a contender, unless the row sets them
    tile      bases processed at once
    slots     carries kept; None: one per tile
    batch     windows computed together, in rows of many regions
    regions   number of regions in such rows
    rounds    repetitions of each contender
    length    bases in every row; None: each row's own length, for which its thresholds are set
    kernels   kernels of our own contenders, a name known to `choose`
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
        """Return the number of carries kept for a window."""
        return self.slots or -(-length // self.tile)

    @property
    def region(self) -> int:
        """Bases per region, in rows of many regions."""
        return min(REGION, self.length or REGION)

    @property
    def cuda(self) -> bool:
        return self.device != "cpu"


@dataclass(frozen=True)
class Task:
    """One contender on `length` bases."""

    contender: str
    length: int
    settings: Settings

    def dump(self) -> str:
        """Return the task as one line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def load(line: str) -> "Task":
        """Read what `dump` wrote."""
        record = json.loads(line)
        return Task(record["contender"], record["length"], Settings(**record["settings"]))
