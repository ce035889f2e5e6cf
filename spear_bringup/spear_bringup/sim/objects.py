"""What lies on the table: names, sizes and colours. Frames sit in the middle of each object."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cube:
    """A cube that the gripper can take."""

    name: str
    rgb: tuple[float, float, float]
    side_m: float = 0.04
    mass_kg: float = 0.05

    @property
    def size_m(self) -> tuple[float, float, float]:
        """Extent in x, y, z [m]."""
        return (self.side_m,) * 3

    @property
    def height_m(self) -> float:
        """Height above what it stands on [m]."""
        return self.side_m


@dataclass(frozen=True)
class Dish:
    """Something round that a cube is put on or in.

    Attributes:
        preposition: "on" or "in", as the instruction says it.
        rim_radius_m: radius of the outer edge.
        floor_radius_m: radius of the flat part inside.
        floor_height_m: height of that flat part over the table.
        height_m: height of the rim over the table.
    """

    name: str
    preposition: str
    rgb: tuple[float, float, float]
    rim_radius_m: float
    floor_radius_m: float
    floor_height_m: float
    height_m: float
    mass_kg: float

    @property
    def size_m(self) -> tuple[float, float, float]:
        """Extent in x, y, z [m]."""
        return (2 * self.rim_radius_m, 2 * self.rim_radius_m, self.height_m)


CUBES = (
    Cube("red cube", (0.80, 0.09, 0.07)),
    Cube("green cube", (0.10, 0.55, 0.16)),
    Cube("blue cube", (0.08, 0.24, 0.75)),
    Cube("yellow cube", (0.95, 0.74, 0.06)),
)
PLATE = Dish("plate", "on", (0.93, 0.93, 0.90), 0.075, 0.055, 0.008, 0.014, 0.4)
BOWL = Dish("bowl", "in", (0.30, 0.52, 0.60), 0.072, 0.045, 0.008, 0.042, 0.35)
DISHES = (PLATE, BOWL)
OBJECTS = {thing.name: thing for thing in (*CUBES, *DISHES)}
