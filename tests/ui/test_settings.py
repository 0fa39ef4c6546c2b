"""Settings of the page, and who may log in."""

import pytest

from dynamicrafter.errors import InputError
from dynamicrafter.ui.settings import AUTH_VARIABLE, ServerSettings, read_users


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch):
    monkeypatch.delenv(AUTH_VARIABLE, raising=False)


def test_users_come_from_flag_file_and_variable(tmp_path, monkeypatch):
    (tmp_path / "users").write_text("ann:correct horse\n\nbob:batte:ry staple\n")
    (tmp_path / "users").chmod(0o600)
    monkeypatch.setenv(AUTH_VARIABLE, "eve:from the environment")
    users = read_users(ServerSettings(auth=("dan:on the command line",), auth_file=tmp_path / "users"))
    assert users.knows("ann", "correct horse")
    assert users.knows("bob", "batte:ry staple")
    assert users.knows("eve", "from the environment")
    assert users.knows("dan", "on the command line")
    assert not users.knows("ann", "correct hors")
    assert not users.knows("ann", "")
    assert not users.knows("nobody", "")
    assert not users.knows("", "correct horse")


def test_nobody_is_named_by_default_and_only_this_machine_listens():
    assert not read_users(ServerSettings())
    assert ServerSettings().is_local
    assert ServerSettings(host="localhost").is_local
    assert not ServerSettings(host="0.0.0.0").is_local
    assert not ServerSettings(host="example.org").is_local


@pytest.mark.parametrize("entry", ["hunter22-without-a-name", ":password1"])
def test_a_bad_entry_is_refused_and_not_repeated(entry):
    with pytest.raises(InputError, match="--auth must be USER:PASSWORD") as error:
        read_users(ServerSettings(auth=(entry,)))
    assert entry not in str(error.value)


def test_a_short_password_a_missing_and_an_empty_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="the password of ann must have at least 8 characters"):
        read_users(ServerSettings(auth=("ann:short",)))
    with pytest.raises(InputError, match=r"auth_file .*nowhere can't be read \(No such file"):
        read_users(ServerSettings(auth_file=tmp_path / "nowhere"))
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "empty").chmod(0o400)
    with pytest.raises(InputError, match="is empty; write USER:PASSWORD"):
        read_users(ServerSettings(auth_file=tmp_path / "empty"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"port": 70000}, "port must be between 0 and 65535, got 70000"),
        ({"max_upload": 0}, "max_upload must be at least 1, got 0"),
        ({"keep_hours": 0.0}, "keep_hours must be more than 0"),
        ({"root_path": "video/"}, "root_path must begin with a slash"),
    ],
)
def test_a_setting_that_breaks_its_rule_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        ServerSettings(**settings).check()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_of_passwords_that_others_can_read_or_change_is_refused(tmp_path, mode):
    path = tmp_path / "users"
    path.write_text("ann:correct horse\n")
    path.chmod(mode)
    with pytest.raises(InputError, match=rf"users must be its owner's alone, got mode {mode:o}; run `chmod"):
        read_users(ServerSettings(auth_file=path))
    path.chmod(0o600)
    assert read_users(ServerSettings(auth_file=path))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_a_page_that_other_machines_reach_wants_users_or_the_word_open(host, monkeypatch):
    with pytest.raises(InputError, match=rf"host {host} lets other machines use the page.* or say --open"):
        read_users(ServerSettings(host=host))
    assert not read_users(ServerSettings(host=host, open=True))
    monkeypatch.setenv(AUTH_VARIABLE, "eve:from the environment")
    assert read_users(ServerSettings(host=host))
    with pytest.raises(InputError, match="open lets everybody in, and users are named"):
        read_users(ServerSettings(host=host, open=True))
