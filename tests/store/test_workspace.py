import sqlite3
import subprocess
import sys

import pytest

from ofa_deploy.errors import UsageError
from ofa_deploy.store import Device, NewItem, Store, Workspace
from ofa_deploy.store.database import HEAD, MIGRATIONS, open_engine
from ofa_deploy.store.schema import Base


def test_workspace_creates_its_folders_and_opens_again(tmp_path):
    for _ in range(2):
        with Workspace.open(tmp_path / "a" / "ws") as ws:
            assert all(folder.is_dir() for folder in (ws.supernets, ws.accuracy, ws.tables, ws.bundles))
            assert (ws.root / "ofa.db").is_file()


def test_workspace_from_environment_and_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OFA_WORKSPACE", raising=False)
    with Workspace.open(None) as ws:
        assert ws.root == tmp_path / ".ofa"
    monkeypatch.setenv("OFA_WORKSPACE", str(tmp_path / "env"))
    with Workspace.open(None) as ws:
        assert ws.root == tmp_path / "env"
    with Workspace.open(tmp_path / "argument") as ws:
        assert ws.root == tmp_path / "argument"


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_workspace_that_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError) as error:
        Workspace.open(tmp_path / "file" / "ws")
    assert "--workspace" in one_line(error)


def test_workspace_whose_database_cannot_be_written(tmp_path):
    (tmp_path / "ofa.db").mkdir()
    with pytest.raises(UsageError) as error:
        Workspace.open(tmp_path)
    assert "ofa.db" in one_line(error)


def test_damaged_database(tmp_path):
    (tmp_path / "ofa.db").write_bytes(b"this is no database, and it is long enough to be looked at" * 100)
    before = (tmp_path / "ofa.db").read_bytes()
    with pytest.raises(UsageError) as error:
        Workspace.open(tmp_path)
    assert "not a database" in one_line(error)
    assert (tmp_path / "ofa.db").read_bytes() == before


def test_database_of_a_newer_version(tmp_path):
    Workspace.open(tmp_path).close()
    with sqlite3.connect(tmp_path / "ofa.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(UsageError, match="newer ofa-deploy"):
        Workspace.open(tmp_path)


def test_migrations_build_exactly_the_models(database):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    Store(database).close()
    engine = open_engine(database)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_a_database_of_the_first_version_keeps_its_rows(database):
    from alembic import command
    from alembic.config import Config

    engine, config = open_engine(database), Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.execution_options(writes=True).connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for statement in FIRST_VERSION:
            connection.exec_driver_sql(statement)
    engine.dispose()
    store = Store(database)
    assert store.device("local") == Device("local", None, {"cpu": "x"}, "2025", "2026", None)
    assert [record["p50"] for record in store.measurements("local")] == [1.5]
    assert [(e.accuracy, e.state, e.weights) for e in store.evaluations("net", "valid")] == [(0.5, "one-shot", "net")]
    store.add_evaluation("net", {"space": "s"}, "new", 0.75, 10, "valid", "fit")
    assert [(a.key, a.space) for a in store.architectures.find()] == [("a1", "s"), ("new", "s")]
    assert store.jobs.status("j").state == "cancelled", "no agent of this version would understand it"
    assert store.runs.claim("local", "q", 60) is None
    store.jobs.create("new", "local", {}, [[NewItem(0, "b", {"key": "k"})]])
    assert store.runs.claim("local", "", 60).run_s == 3600
    store.close()


FIRST_VERSION = (
    "INSERT INTO devices VALUES ('local', '{\"cpu\": \"x\"}', '2025', '2026')",
    "INSERT INTO jobs VALUES ('j', 'local', 'q', 'active', '{}', NULL, '2025', NULL)",
    "INSERT INTO chunks VALUES ('j-0', 'j', 0, 'running', 1)",
    "INSERT INTO items VALUES ('j.0', 'j-0', 'j', 0, 'waiting', 'blob', '{}', NULL)",
    "INSERT INTO runs VALUES ('r', 'j-0', 'local', 1, 'running', NULL, NULL, '2025', '2025')",
    "INSERT INTO evaluations VALUES (4, 'net', 'a1', 'valid', 'fit', '{\"space\": \"s\"}', 0.5, 10, '2025')",
    "INSERT INTO evaluations VALUES (5, 'net', 'a1', 'test', 'fit', '{\"space\": \"s\"}', 0.4, 10, '2026')",
    "INSERT INTO measurements VALUES (1, 'local', 'op', 'k', 'h', '2025', 'r', 'j.0', '{\"p50\": 1.5}')",
)


@pytest.mark.parametrize("url", ["mysql://x", "nonsense", "", "postgresql://127.0.0.1:1/none", "sqlite:////proc/x/y"])
def test_databases_that_cannot_be_used(url, tmp_path, monkeypatch):
    monkeypatch.setenv("OFA_DATABASE", "postgresql://somebody:secret@127.0.0.1:1/none")
    with pytest.raises(UsageError) as error:
        Workspace.open(tmp_path, url)
    assert "database" in one_line(error)
    assert "secret" not in str(error.value)


def test_head_is_the_newest_revision():
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_several_processes_may_create_a_workspace_at_once(tmp_path):
    code = "import sys, pathlib, ofa_deploy.store as s; s.Workspace.open(pathlib.Path(sys.argv[1])).close()"
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "ws")]) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
