"""Laws of injectors, over arbitrary attributes and graphs of components."""

import pickle

from hypothesis import given, settings
from hypothesis import strategies as st

from quant_core.inject import Injector, assemble, value

names = st.sampled_from(["bit_width", "signed", "scale", "zero_point", "axis"])
attributes = st.dictionaries(names, st.integers() | st.none() | st.sampled_from(["", "half"]))


class Base(Injector):
    bit_width = 8
    signed = True


def all_of(injector):
    return {
        name: getattr(injector, name)
        for name in ["bit_width", "signed", "scale", "zero_point", "axis"]
        if name in injector
    }


@given(first=attributes, second=attributes)
def test_one_let_after_another_is_one_let_with_both(first, second):
    assert all_of(Base.let(**first).let(**second)) == all_of(Base.let(**{**first, **second}))


@given(own=attributes)
def test_let_is_a_derived_class(own):
    derived = type(Base)("Derived", (Base,), dict(own))
    assert all_of(Base.let(**own)) == all_of(derived) == {"bit_width": 8, "signed": True, **own}


@given(first=attributes, second=attributes)
def test_composition_is_the_first_base_over_the_second(first, second):
    one, two = type(Base)("One", (Injector,), first), type(Base)("Two", (Injector,), second)
    assert all_of(type(Base)("Both", (one, two), {})) == {**second, **first}


@given(first=attributes, second=attributes)
def test_pickling_keeps_every_attribute(first, second):
    derived = Base.let(**first).let(**second)
    restored = pickle.loads(pickle.dumps(derived))
    assert all_of(restored) == all_of(derived)
    assert issubclass(restored, Base)


@settings(max_examples=50)
@given(data=st.data(), size=st.integers(2, 8))
def test_in_any_graph_without_circles_every_needed_name_is_built_once(data, size):
    needs = {
        number: sorted(data.draw(st.sets(st.integers(number + 1, size - 1)))) if number + 1 < size else []
        for number in range(size)
    }
    built = []

    def node(number):
        parameters = ", ".join(f"n{other}" for other in needs[number])
        function = eval(f"lambda {parameters}: (built.append({number}), [{parameters}])[1]", {"built": built})
        return value(function)

    graph = type(Base)("Graph", (Injector,), {f"n{number}": node(number) for number in range(size)})
    reachable, waiting = set(), [0]
    while waiting:
        number = waiting.pop()
        if number not in reachable:
            reachable.add(number)
            waiting += needs[number]
    assemble(graph, ["n0"], reads=[f"n{number}" for number in range(size)])
    assert sorted(built) == sorted(reachable)
    # Whatever is printed is printed without building.
    assert str(graph).startswith("Graph\n")
    assert sorted(built) == sorted(reachable)
