"""The words of `--fault`."""

import pytest

from appliance.errors import ConfigError
from appliance.sim import faults
from appliance.sim.faults import Garbage, Hole, Limits, Reset, Rest, Strikes


def test_without_a_word_the_exchange_is_healthy() -> None:
    healthy = faults.parse([])
    assert healthy.faults == ()
    assert healthy.limits == Limits()


def test_a_fault_has_its_values_and_the_defaults_of_the_rest() -> None:
    asked = faults.parse(["reset:after_frames=7,connection=1", "rest:answer=451,path=exchangeInfo", "hole:fillable=false"])
    assert asked.one(Reset) == Reset(after_frames=7, connection=1)
    assert asked.one(Rest) == Rest(answer="451", path="exchangeInfo")
    assert asked.one(Hole) == Hole(fillable=False)


def test_limits_are_set_by_name_alone() -> None:
    assert faults.parse(["ping_interval_s=0.2,pong_timeout_s=1", "connects=3"]).limits == Limits(
        ping_interval_s=0.2, pong_timeout_s=1.0, connects=3
    )


def test_kinds_of_garbage_are_joined_by_plus() -> None:
    assert faults.parse(["garbage:every=5,kinds=nan+huge"]).one(Garbage) == Garbage(every=5, kinds=("nan", "huge"))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("garbge", "Did you mean 'garbage'?"),
        ("stall:after=1", "no key 'after'"),
        ("stall:after_s=soon", "expected a number"),
        ("reset:after_frames=1.5", "expected a whole number"),
        ("reset:after_s=-2", "from 0 on"),
        ("reset:after_s=nan", "from 0 on"),
        ("reset:after_s", "needs a value"),
        ("hole:fillable=perhaps", "true or false"),
        ("rest:answer=200", "expected one of"),
        ("garbage:kinds=nan+nonsense", "expected one of"),
        ("ping_intervall_s=1", "Did you mean 'ping_interval_s'?"),
        ("", "no fault is named ''"),
    ],
)
def test_a_mistake_names_what_was_found_and_what_is_possible(spec: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        faults.parse([spec])
    assert repr(spec) in str(caught.value)
    assert said in str(caught.value)


def test_the_help_lists_every_fault_with_its_keys() -> None:
    for name in faults.NAMES:
        assert f"\n  {name}" in faults.HELP
    assert "retry_after_s=5" in faults.HELP
    assert "pong_timeout_s=60.0" in faults.HELP


def test_a_fault_strikes_as_often_as_asked() -> None:
    strikes = Strikes()
    twice, always = Reset(), Reset()
    assert [strikes.hit(twice, 2) for _ in range(4)] == [True, True, False, False]
    assert all(strikes.hit(always, 0) for _ in range(4))
