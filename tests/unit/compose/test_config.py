"""Settings: where they come from, and what is refused."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import pytest

from compose.config import Settings, api_key, default_of, load_settings, obeying
from compose.spelling import parse_ports, spell
from indexer.merge_policy import MergeOptions
from schemas.errors import ConfigError


@pytest.fixture(autouse=True)
def _clean(monkeypatch, tmp_path):
    """Start each test without settings, in an empty folder."""
    import os  # noqa: PLC0415

    for name in list(os.environ):
        if name.startswith("FRESHET_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_defaults_need_no_file_and_no_environment():
    """Without any setting freshet listens on 127.0.0.1:5080 with the embedded log."""
    loaded = load_settings()
    assert (loaded.settings.bind, loaded.settings.port, loaded.settings.log) == ("127.0.0.1", 5080, "sqlite://")
    assert set(loaded.sources.values()) == {"default"}


def test_command_line_beats_environment_beats_file(monkeypatch, tmp_path):
    """Each value comes from the strongest source that names it, and says so."""
    (tmp_path / "freshet.toml").write_text('port = 1001\npartitions = 2\ndata_dir = "there"\n')
    monkeypatch.setenv("FRESHET_PORT", "1002")
    monkeypatch.setenv("FRESHET_PARTITIONS", "3")
    loaded = load_settings(overrides={"port": "1003"})
    assert (loaded.settings.port, loaded.settings.partitions, str(loaded.settings.data_dir)) == (1003, 3, "there")
    assert loaded.sources["port"] == "command line"
    assert loaded.sources["partitions"] == "FRESHET_PARTITIONS"
    assert loaded.sources["data_dir"] == "freshet.toml"


def test_file_named_by_variable_is_read(monkeypatch, tmp_path):
    """FRESHET_CONFIG names the file; a missing one is refused, since somebody meant it."""
    (tmp_path / "other.toml").write_text("port = 1001\n")
    monkeypatch.setenv("FRESHET_CONFIG", str(tmp_path / "other.toml"))
    assert load_settings().settings.port == 1001
    monkeypatch.setenv("FRESHET_CONFIG", str(tmp_path / "missing.toml"))
    with pytest.raises(ConfigError, match=r"missing\.toml"):
        load_settings()


def test_unknown_variable_is_refused_with_the_nearest_name(monkeypatch):
    """A misspelled setting is not an ignored one."""
    monkeypatch.setenv("FRESHET_DATA_DIRR", "x")
    with pytest.raises(ConfigError, match="Did you mean 'data_dir'"):
        load_settings()


def test_unknown_key_of_the_file_is_refused(tmp_path):
    """The same holds for the file."""
    (tmp_path / "freshet.toml").write_text("prot = 1\n")
    with pytest.raises(ConfigError, match=r"'prot' \(freshet\.toml\).*Did you mean 'port'"):
        load_settings()


def test_file_that_is_not_toml_is_refused(tmp_path):
    """The error names the file."""
    (tmp_path / "freshet.toml").write_text("port 1\n")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("FRESHET_PORT", "abc", "port .FRESHET_PORT.: 'abc'"),
        ("FRESHET_PORT", "70000", "less than or equal to 65535"),
        ("FRESHET_INDEX_PORTS", "5081-", "neither a port nor a range"),
        ("FRESHET_INDEX_PORTS", "90-80", "rising order"),
        ("FRESHET_LOG", "redis://x", "neither sqlite:// nor kafka://"),
        ("FRESHET_LOG", "kafka://host", "neither sqlite:// nor kafka://"),
        ("FRESHET_CRASH_AT", "Some Step", "is not <step>"),
        ("FRESHET_ROLLUP_DELTAS", "64", "less than or equal to 63"),
        ("FRESHET_DEAD_SHARE_MAX", "1.5", "less than 1"),
        ("FRESHET_LOG_SYNCHRONOUS", "OFF", "'FULL' or 'NORMAL'"),
    ],
)
def test_wrong_value_is_refused_with_name_and_reason(monkeypatch, name, value, reason):
    """The error says which setting, where it was set, and what was wrong with it."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=reason):
        load_settings()


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
def test_address_that_others_reach_is_closed_without_keys(monkeypatch, address):
    """Without keys only loopback is open, unless a setting says otherwise loudly."""
    monkeypatch.setenv("FRESHET_BIND", address)
    assert not load_settings().settings.is_open_without_keys
    monkeypatch.setenv("FRESHET_BIND_WITHOUT_KEYS", "true")
    assert load_settings().settings.is_open_without_keys


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_is_bound(monkeypatch, address):
    """Every spelling of this machine alone is fine."""
    monkeypatch.setenv("FRESHET_BIND", address)
    assert load_settings().settings.bind == address
    assert load_settings().settings.is_open_without_keys


def test_key_of_the_commands_is_in_the_environment_or_in_a_file(monkeypatch, tmp_path):
    """It is no setting, and never shown; the variable wins over the file, and line ends around it do not matter."""
    assert api_key() == ""
    file = tmp_path / "key"
    file.write_text("fsk_file\n")
    monkeypatch.setenv("FRESHET_API_KEY_FILE", str(file))
    assert api_key() == "fsk_file"
    monkeypatch.setenv("FRESHET_API_KEY", "fsk_variable")
    assert api_key() == "fsk_variable"
    assert "fsk_" not in str(load_settings().effective())
    monkeypatch.delenv("FRESHET_API_KEY")
    for path in (tmp_path / "none", tmp_path):
        monkeypatch.setenv("FRESHET_API_KEY_FILE", str(path))
        with pytest.raises(ConfigError, match="Cannot read the API key"):
            api_key()
    for key in ("schlüssel", "a\nb"):
        monkeypatch.setenv("FRESHET_API_KEY", key)
        with pytest.raises(ConfigError, match="no API key") as refused:
            api_key()
        assert key not in str(refused.value)


def test_ports_are_read_and_spelled_as_ranges():
    """The same text goes in and comes out."""
    ports = parse_ports("5081-5083, 6000,5082")
    assert ports == (5081, 5082, 5083, 6000)
    assert spell(ports) == "5081-5083,6000"
    assert parse_ports("") == ()


def test_every_threshold_is_a_field_of_the_class_that_obeys_it():
    """A setting that nobody obeys would be a lie."""
    for name, target in obeying().items():
        module, _, rest = target.partition(":")
        options_class = getattr(__import__(module, fromlist=["_"]), rest.partition(".")[0])
        assert is_dataclass(options_class)
        assert rest.partition(".")[2] in {field.name for field in fields(options_class)}, name
        assert default_of(target) is not None


def test_options_carry_only_what_is_set():
    """A threshold that is not set keeps the default of its class."""
    settings = load_settings(overrides={"graph_rows_min": "32"}).settings
    assert MergeOptions(**settings.options_of(MergeOptions)) == MergeOptions(graph_rows_min=32)


def test_effective_values_hold_the_defaults_of_the_options():
    """What `freshet config` shows is what is obeyed."""
    effective = load_settings(overrides={"rollup_deltas": 3}).effective()
    assert effective["rollup_deltas"] == 3
    assert effective["graph_rows_min"] == MergeOptions().graph_rows_min


def test_every_setting_is_described():
    """The table in the README is made of these."""
    assert all(info.description for info in Settings.model_fields.values())


@pytest.mark.parametrize(
    ("setting", "template"),
    [
        ("host_template", "http://{nmae}.example.com"),
        ("host_template", "http://{}"),
        ("host_template", "http://{port"),
        ("host_template", "{name.__class__.x}"),
        ("host_template", ""),
        ("portless_host_template", "http://a b/{name}"),
        ("portless_host_template", "http://{host}/i/{name}"),
    ],
)
def test_host_template_of_which_no_host_can_be_made_is_refused(setting, template):
    """At start, since every description of an index would fail."""
    with pytest.raises(ConfigError, match=setting):
        load_settings(overrides={setting: template})


def test_hosts_say_https_where_tls_is_on():
    """Unless they are set themselves; a certificate without a key, or the other way round, is refused."""
    pair = {"tls_certificate": "c.pem", "tls_key": "k.pem"}
    chosen = load_settings(overrides=pair).settings
    assert chosen.host_template == "https://localhost:{port}"
    assert chosen.portless_host_template == "https://localhost:{control_port}/i/{name}"
    assert (
        load_settings(overrides={**pair, "host_template": "{name}.example"}).settings.host_template == "{name}.example"
    )
    assert load_settings().settings.host_template == "http://localhost:{port}"
    for one, value in pair.items():
        with pytest.raises(ConfigError, match="TLS needs it beside"):
            load_settings(overrides={one: value})
