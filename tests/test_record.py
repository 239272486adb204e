"""Records: what a frozen data class with slots does, without its start-up cost."""

from __future__ import annotations

import copy

import pytest

from tracegrad.record import as_dict, record, replace


@record
class Point:
    """A place."""

    x: int
    y: int = 0

    @property
    def both(self) -> tuple[int, int]:
        return self.x, self.y


@record
class Named(Point):
    name: str = "here"


@record(eq=False)
class Thing:
    value: int


def test_fields_by_position_name_and_default() -> None:
    assert Point(1, 2).both == Point(y=2, x=1).both == (1, 2)
    assert Point(1).both == (1, 0)
    assert (Named(1, 2, "there").name, Named(1, name="there").both, Named(1).name) == ("there", (1, 0), "here")
    assert Point.__doc__ == "A place." and Point.__module__ == __name__


def test_equal_by_fields_and_type() -> None:
    assert Point(1, 2) == Point(1, 2) != Point(2, 1)
    assert Point(1) != Named(1) and Named(1) == Named(1, 0, "here") and Point(1) != (1, 0)
    assert len({Point(1), Point(1), Point(2), Named(1)}) == 3
    assert Thing(1) != Thing(1) and len({Thing(1), Thing(1)}) == 2


def test_frozen_and_without_room_for_more() -> None:
    point = Point(1)
    for name in ("x", "z"):
        with pytest.raises(AttributeError, match=f"Point is frozen: {name} cannot be changed"):
            setattr(point, name, 3)
    with pytest.raises(AttributeError, match="Named is frozen: x"):
        del Named(1).x
    assert not hasattr(point, "__dict__") and not hasattr(Named(1), "__dict__")


@pytest.mark.parametrize(
    ("values", "named", "message"),
    [
        ((), {}, r"Point\(\) needs 'x'"),
        ((1, 2, 3), {}, r"Point\(\) takes 2 values but 3 were given"),
        ((1,), {"x": 2}, r"Point\(\) got two values for 'x'"),
        ((1,), {"z": 2}, r"Point\(\) got an unexpected field 'z'"),
    ],
)
def test_wrong_arguments(values: tuple[int, ...], named: dict[str, int], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Point(*values, **named)


def test_shown_matched_copied_replaced() -> None:
    assert repr(Named(1, name="a")) == "Named(x=1, y=0, name='a')" and repr(Thing(3)) == "Thing(value=3)"
    match Named(1, 2, "a"):
        case Named(x, y, name):
            assert (x, y, name) == (1, 2, "a")
    assert copy.deepcopy(Named(1, 2)) == Named(1, 2)
    assert replace(Named(1, 2), x=5) == Named(5, 2) and as_dict(Point(1)) == {"x": 1, "y": 0}
