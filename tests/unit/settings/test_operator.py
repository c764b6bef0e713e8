"""The settings file: one spelling, every mistake said at once, every setting described."""

import pytest
from pydantic import BaseModel

from gpuwaste.model.errors import InputError
from gpuwaste.settings.errors import SettingsError
from gpuwaste.settings.operator import OperatorSettings, load_settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("store: /data\nagents: {port: 0}", "field `agents.port`"),
        ("store: /data\nunknown: 1", "field `unknown`"),
        ("clusterName: a", "field `store`"),
        ("store: /data\nteamRules: {rules: [{source: nowhere}]}", "field `teamRules.rules.0.source`"),
        ("a: [", "line 1: is no YAML"),
        ("- a", "must be a mapping"),
        ("", "field `store` is missing"),
        (
            "store: /data\nagents: {pullPeriod: 5}",
            "`agents.pullPeriod` is not known; did you mean `pullPeriodSeconds`?",
        ),
        ("store: /data\ncluster_name: a", "field `cluster_name` is not known; did you mean `clusterName`?"),
        ("store: /data\nteamRules: {rules: [{source: namespace, mach: x}]}", "did you mean `match`?"),
        ("store: /data\nteamRules: {rules: [{source: namespace, match: (}]}", "must be a regular expression"),
    ],
)
def test_bad_settings_are_refused_by_file_and_field(tmp_path, text, message):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_settings(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_settings_have_camel_case_names(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("store: /data\nagents: {pullPeriodSeconds: 5, endpoints: ['http://127.0.0.1:1']}")
    assert load_settings(path).agents.pull_period_seconds == 5


def test_all_mistakes_are_said_a_line_each(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("stor: /data\nagents: {port: 0}")
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    first, *rest = caught.value.lines
    assert first == f"{path}: 3 settings are wrong"
    assert sorted(rest) == [
        "  field `agents.port`: input should be greater than or equal to 1",
        "  field `stor` is not known; did you mean `store`?",
        "  field `store` is missing",
    ]


@pytest.mark.parametrize(
    ("pricing", "says"),
    [
        ("{exchangeRates: {EUR: 1.1}}", "`currency`, which is not set"),
        ("{currency: USD, exchangeRates: {euro: 1.1}}", "by three letters such as EUR, not 'euro'"),
        ("{currency: USD, exchangeRates: {USD: 2}}", "`exchangeRates.USD` can only be 1"),
        ("{currency: USD, exchangeRates: {EUR: 0}}", "greater than 0"),
    ],
)
def test_rates_that_lead_nowhere_are_refused(tmp_path, pricing, says):
    path = tmp_path / "settings.yaml"
    path.write_text(f"store: /data\npricing: {pricing}")
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert says in str(caught.value.lines)


def test_code_has_pythons_names():
    assert OperatorSettings(store="/data", cluster_name="a").cluster_name == "a"


def undescribed(model):
    for name, field in model.model_fields.items():
        if not field.description:
            yield f"{model.__name__}.{name}"
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from undescribed(part)


def test_every_setting_is_described():
    assert list(undescribed(OperatorSettings)) == []
