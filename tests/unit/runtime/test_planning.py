"""The object that shows a plan."""

from tests.unit.api import samples

from gpuwaste.runtime.planning import plan_object


def test_the_object_has_the_name_of_the_plan():
    document = samples.plan().model_copy(update={"id": "plan-0a1b2c3d"})
    shown = plan_object(document, now=samples.NOW)
    assert shown.metadata.name == "plan-0a1b2c3d"
    assert shown.spec.id == shown.metadata.name
