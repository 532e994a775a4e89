"""A feature's own settings are read, checked and shown like ours, and clash with nothing unnoticed."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from routeguard import ConfigError, Feature, Routeguard, Secret, Settings, Setup
from routeguard.cli.main import run
from routeguard.settings.branches import listed
from tests.settings_features import DeviceSettings, device

COVERS = ("settings/branches",)

KEY = Secret("kR2v_9qLm4tXw7Zs-Jd81hPbNfYcVuGa0oE5iT3")


@dataclass(frozen=True, slots=True)
class Limit:
    limit: int = 1


@dataclass(frozen=True, slots=True)
class Needy:
    value: int


def read(tmp_path: Path, *features: Feature, toml: str = "", **environ: str) -> tuple[Settings, list[str]]:
    (tmp_path / "pyproject.toml").write_text(toml, encoding="utf-8")
    return Settings.read(environ=environ, directory=tmp_path, beside=features)


def refused(*features: Feature, **settings: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        Routeguard(Settings(secret=KEY, **settings), features=features, identify=lambda _: None)
    return caught.value.findings


def test_they_come_from_arguments_the_environment_and_toml(tmp_path: Path) -> None:
    toml = '[tool.routeguard.device]\nlasts = "2h"\nmost = 3'
    settings, findings = read(tmp_path, device, toml=toml, ROUTEGUARD_DEVICE_MOST="4")
    assert findings == []
    assert settings.of(device) == DeviceSettings(lasts=timedelta(hours=2), most=4)
    assert settings.provenance["device.most"] == "environment ROUTEGUARD_DEVICE_MOST"
    given, _ = Settings.read(environ={}, directory=tmp_path, beside=[device], device=DeviceSettings(most=9))
    assert given.of(device) == DeviceSettings(most=9)


def test_a_feature_may_be_listed_by_name(tmp_path: Path) -> None:
    toml = '[tool.routeguard]\nfeatures = ["tests.settings_features:device"]\n[tool.routeguard.device]\nmost = 3'
    settings, findings = read(tmp_path, toml=toml)
    assert findings == []
    assert settings.of(device).most == 3
    guard = Routeguard(replace(settings, secret=KEY), identify=lambda _: None)
    assert guard.features == (device,)
    assert Routeguard(replace(settings, secret=KEY), features=[device], identify=lambda _: None).features == (device,)


def test_every_name_that_leads_to_no_feature_is_told(tmp_path: Path) -> None:
    names = "tests.settings_features:no_feature,tests.nowhere:device,tests.settings_features:devcie,plain"
    _, findings = read(tmp_path, ROUTEGUARD_FEATURES=names)
    assert [finding.split("'")[1] for finding in findings] == names.split(",")


def test_what_is_wrong_with_them_is_told_with_all_else(tmp_path: Path) -> None:
    environ = {"ROUTEGUARD_DEVICE_MOST": "many", "ROUTEGUARD_DEVICE_LAST": "1h", "ROUTEGUARD_SESSIONS_IDEL": "1h"}
    _, findings = read(tmp_path, device, **environ)
    assert findings == [
        "ROUTEGUARD_DEVICE_LAST is not a setting; did you mean ROUTEGUARD_DEVICE_LASTS?",
        "ROUTEGUARD_SESSIONS_IDEL is not a setting; did you mean ROUTEGUARD_SESSIONS_IDLE?",
        "ROUTEGUARD_DEVICE_MOST: must be a whole number",
    ]


def test_a_feature_that_is_not_there_has_no_settings(tmp_path: Path) -> None:
    _, findings = read(tmp_path, ROUTEGUARD_DEVICE_MOST="4")
    assert [finding.split(";")[0] for finding in findings] == ["ROUTEGUARD_DEVICE_MOST is not a setting"]


def test_every_clash_of_names_is_a_finding() -> None:
    features = [
        Feature(name="mail", settings=Limit, records=False),
        Feature(name="body", settings=Limit, records=False),
        Feature(name="Big", settings=Limit, records=False),
        Feature(name="plain", settings=int, records=False),
        Feature(name="needy", settings=Needy, records=False),
    ]
    found = refused(*features)
    assert found[:4] == (
        "the settings of the feature mail have the name of a setting of Routeguard",
        "the settings of body and of Routeguard share ROUTEGUARD_BODY_LIMIT",
        "'Big' cannot name settings: write lower-case letters, digits and underscores",
        "the settings of plain are no dataclass: <class 'int'>",
    )
    assert found[4].startswith("the settings of needy cannot be left at their defaults")


def test_values_of_a_wrong_type_or_for_no_feature_are_findings() -> None:
    assert refused(device, own={"device": Limit(), "devcie": Limit()}) == (
        "own: device must be DeviceSettings, not Limit",
        "own: no feature in features has settings called devcie",
    )
    assert refused(device, own={"device": DeviceSettings(most="5")}) == (  # type: ignore[arg-type]
        "device.most must be int, not str",
    )


def test_setup_is_given_them_typed() -> None:
    seen: list[DeviceSettings] = []

    def set_up(setup: Setup[DeviceSettings]) -> None:
        seen.append(setup.settings)

    feature = Feature(name="device", settings=DeviceSettings, setup=set_up, records=False)
    own = {"device": DeviceSettings(most=2)}
    Routeguard(Settings(secret=KEY, own=own), features=[feature], identify=lambda _: None)
    Routeguard(Settings(secret=KEY), features=[feature], identify=lambda _: None)
    assert seen == [DeviceSettings(most=2), DeviceSettings()]


def test_config_show_lists_them_without_their_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROUTEGUARD_FEATURES", "tests.settings_features:device")
    monkeypatch.setenv("ROUTEGUARD_DEVICE_PEPPER", "salt-and-pepper")
    assert run(["config", "show", "--format", "json"]) == 0
    shown = {row["setting"]: row for row in json.loads(capsys.readouterr().out)["settings"]}
    assert shown["device.lasts"] == {"setting": "device.lasts", "value": "30d", "source": "default"}
    assert shown["device.pepper"]["value"] == "(hidden)"
    assert shown["device.pepper"]["source"] == "environment ROUTEGUARD_DEVICE_PEPPER"


@pytest.mark.parametrize("name", [".house:badges", "..:badges"])
def test_a_relative_name_of_a_feature_is_a_finding(name: str) -> None:
    found, findings = listed([name])
    assert found == []
    assert [name in finding for finding in findings] == [True]
