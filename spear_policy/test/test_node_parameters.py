"""Parameters from their definition file: types, constraints, what is fixed when, sentences."""

import pytest
from rclpy.parameter import Parameter
from ros_fixture import ros

from spear_policy.nodes import parameters
from spear_policy.nodes.lifecycle import RefusedError, SpearNode
from spear_policy.nodes.parameters import Parameters, read_specs

DEFINITIONS = """
sample:
  timeout_s:
    type: double
    default_value: 0.1
    description: "lost after [s]"
    read_only: true
    additional_constraints: safety
    validation: {bounds<>: [0.02, 2.0]}
  mode: {type: string, default_value: enforce, description: how, read_only: true,
    validation: {one_of<>: [[enforce, ignore]]}}
  count: {type: int, default_value: 3, description: how many, read_only: true,
    validation: {bounds<>: [1, 9]}}
  home_rad: {type: double_array, default_value: [0.0, 1.0], description: "where [rad]",
    read_only: true, validation: {element_bounds<>: [-2.0, 2.0], fixed_size<>: 2}}
  quick: {type: bool, default_value: true, description: whether}
  host: {type: string, default_value: "127.0.0.1", description: which, read_only: true,
    validation: {not_empty<>: []}}
  least: {type: int, default_value: 0, description: at least, validation: {gt_eq<>: 0}}
"""


@pytest.fixture(scope="module", autouse=True)
def _ros(ros_domain):
    with ros():
        yield


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A function that makes Parameters from arguments such as "timeout_s:=1"."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "sample.yaml").write_text(DEFINITIONS)
    monkeypatch.setattr(parameters, "get_package_share_directory", lambda package: tmp_path)
    nodes = []

    def make_parameters(*overrides):
        arguments = ["--ros-args", "--log-level", "fatal"]
        arguments += [part for override in overrides for part in ("-p", override)]
        nodes.append(SpearNode("sample", arguments))
        result = Parameters(nodes[-1], "package", "sample")
        result.node = nodes[-1]
        return result

    yield make_parameters
    for node in nodes:
        node.close()


def complaint(params):
    with pytest.raises(RefusedError) as refusal:
        params.check()
    return str(refusal.value)


def test_defaults_pass_and_are_read_by_name(make):
    params = make()
    params.check()
    assert (params["timeout_s"], params["mode"], params["home_rad"]) == (0.1, "enforce", [0.0, 1.0])
    assert params["quick"] is True


def test_every_parameter_out_of_bounds_is_named_with_bound_and_unit(make):
    assert complaint(make("timeout_s:=5.0", "mode:=maybe")) == (
        "safety parameter timeout_s is 5.0 s; it must be 0.02 to 2.0 s; "
        "parameter mode is 'maybe'; it must be one of ['enforce', 'ignore']"
    )


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("timeout_s:=.nan", "timeout_s is nan; it must be finite"),
        ("timeout_s:=.inf", "timeout_s is inf; it must be finite"),
        ("home_rad:=[0.0, 1.0, 2.0]", "it must be a list of 2"),
        ("home_rad:=[0.0, 3.0]", "it must be -2.0 to 2.0 each rad"),
        ("host:=''", "host is ''; it must be not empty"),
        ("least:=-1", "least is -1; it must be at least 0"),
        ("count:=0", "count is 0; it must be 1 to 9"),
        ("timeout_s:=soon", "timeout_s is 'soon'; it must be a number"),
        ("timeout_s:=true", "timeout_s is True; it must be a number"),
        ("count:=2.5", "count is 2.5; it must be a whole number"),
        ("host:=5", "host is 5; it must be text"),
        ("quick:=1", "quick is 1; it must be true or false"),
        ("home_rad:=1.0", "home_rad is 1.0; it must be a list, each a number"),
    ],
)
def test_a_wrong_value_fails_configure_with_a_sentence_and_not_the_start(make, override, words):
    assert words in complaint(make(override))


def test_a_whole_number_is_a_number(make):
    params = make("timeout_s:=1", "home_rad:=[1, 2]")
    params.check()
    assert isinstance(params["timeout_s"], float) and params["timeout_s"] == 1.0
    assert params["home_rad"] == [1.0, 2.0]
    assert all(isinstance(value, float) for value in params["home_rad"])


def test_a_misspelt_parameter_is_warned_of(make, monkeypatch):
    params, said = make("timout_s:=1.0"), []
    logger = type(params.node.get_logger())
    monkeypatch.setattr(logger, "warning", lambda _, text: said.append(text))
    params.check()
    assert said == ["parameter timout_s is unknown here and ignored; did you mean timeout_s?"]


def test_fixed_parameters_change_only_before_configure_and_live_ones_always(make):
    params = make()

    def change(name, value):
        return params.node.set_parameters([Parameter(name, value=value)])[0]

    assert change("timeout_s", 0.5).successful and params["timeout_s"] == 0.5
    params.check()
    answer = change("timeout_s", 0.6)
    assert not answer.successful and "timeout_s is fixed while the node is configured" in (
        answer.reason
    )
    assert change("quick", False).successful and params["quick"] is False
    assert params["timeout_s"] == 0.5
    params.release()
    assert change("timeout_s", 0.6).successful
    refused = change("timeout_s", 3.0)
    assert not refused.successful and "0.02 to 2.0 s" in refused.reason


def test_a_parameter_is_described_with_its_unit_and_constraints(make):
    descriptor = make().node.describe_parameter("timeout_s")
    assert descriptor.description == "lost after [s]"
    assert descriptor.additional_constraints == "0.02 to 2.0 s, safety"
    (bounds,) = descriptor.floating_point_range
    assert (bounds.from_value, bounds.to_value) == (0.02, 2.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x: {a: {type: int, default_value: 1}}", r"a lacks \['description'\]"),
        ("x: {a: {type: int, default_value: 1, description: w, unit: s}}", "unit"),
        ("x: {a: {type: long, default_value: 1, description: w}}", "unknown type 'long'"),
        (
            "x: {a: {type: int, default_value: 1, description: w, validation: {odd<>: []}}}",
            "unknown validation 'odd<>'",
        ),
        (
            "x: {a: {type: int, default_value: 9, description: w, validation: {lt_eq<>: 1}}}",
            "default is not allowed",
        ),
        ("x: {ros__parameters: {a: 1}}\ny: {}", "the only key at the top must be x"),
    ],
)
def test_a_definition_with_a_mistake_is_refused(tmp_path, text, words):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        read_specs(path)
