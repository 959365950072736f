"""What a number must reach."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """What a measure must reach."""

    sign: str
    limit: float

    def __str__(self) -> str:
        return f"{self.sign} {self.limit:,g}"

    def met(self, value: float) -> bool:
        """Say whether it is reached; NaN never is."""
        # Of numpy's numbers, a comparison is no bool.
        return bool(value >= self.limit if self.sign == ">=" else value <= self.limit)


def at_least(limit: float) -> Bar:
    return Bar(">=", limit)


def at_most(limit: float) -> Bar:
    return Bar("<=", limit)
