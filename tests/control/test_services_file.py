"""The services file on disk."""

import os
from pathlib import Path

from integration.recorder import CERTIFICATE
from serf_haproxy.control.authorities import list_copies
from serf_haproxy.control.services_file import ServicesFile
from serf_haproxy.settings import Settings

SHOP = '[shop]\nroutes = ["/shop"]\n'


def test_each_read_finds_what_the_file_says(tmp_path: Path) -> None:
    """The file is read anew each time; without it there is the default service."""
    path = tmp_path / "services.toml"
    file = ServicesFile(Settings().replace(services_file=str(path)))
    assert not file.read({}).are_named
    path.write_text(SHOP)
    assert file.read({}).names == {"nodes", "shop"}
    path.write_text(SHOP.replace("[shop]", "[cart]"))
    assert file.read({}).names == {"nodes", "cart"}
    path.write_bytes(b"\xff\xfe")
    assert file.read(file.read({}).tables).faults != ()


def test_a_path_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    """A directory at the path, or below a file, is one fault, and what was in force goes on."""
    (tmp_path / "services.toml").write_text(SHOP)
    good = ServicesFile(Settings().replace(services_file=str(tmp_path / "services.toml"))).read({}).tables
    for path in (tmp_path, tmp_path / "services.toml" / "x"):
        file = ServicesFile(Settings().replace(services_file=str(path)))
        services = file.read(good)
        assert services.names == {"nodes", "shop"}
        assert len(services.faults) == 1
        assert str(path) in services.faults[0]
        assert file.read({}).names == {"nodes"}


def test_a_huge_file_is_a_fault(tmp_path: Path) -> None:
    """A file that is surely another one by mistake is not read into memory; what was in force goes on."""
    path = tmp_path / "services.toml"
    path.write_text(SHOP)
    file = ServicesFile(Settings().replace(services_file=str(path)))
    good = file.read({}).tables
    with path.open("ab") as huge:
        huge.truncate(2**20 + 1)
    services = file.read(good)
    assert services.names == {"nodes", "shop"}
    assert services.faults == (
        f"cannot read {path}: it is longer than 1048576 bytes; all services go on as they were before",
    )


def test_certificates_that_haproxy_could_not_load_are_a_fault(tmp_path: Path) -> None:
    """A service whose file of authorities is missing or wrong is refused alone, until the file is right."""
    authorities = tmp_path / "ca.pem"
    path = tmp_path / "services.toml"
    path.write_text(f'{SHOP}tls = true\ntls_ca_file = "{authorities}"\n[cart]\nroutes = ["/cart"]\n')
    copies = tmp_path / "copies"
    file = ServicesFile(Settings().replace(services_file=str(path), certificate_copies_dir=str(copies)))
    line = f"{path}: [shop] tls_ca_file = {authorities}: "
    services = file.read({})
    assert services.faults == (f"{line}there is no such file; put it there, or name another one; it is left out",)
    assert services.names == {"nodes", "cart"}
    authorities.write_text("-----BEGIN CERTIFICATE-----\n")
    assert file.read({}).faults == (f"{line}must be a PEM file with certificates; it is left out",)
    authorities.write_bytes(CERTIFICATE.read_bytes())
    good = file.read({})
    assert (good.faults, good.names) == ((), {"nodes", "shop", "cart"})
    assert not copies.exists(), "reading writes nothing"
    authorities.unlink()
    lost = file.read(good.tables)
    assert (len(lost.faults), lost.names, set(lost.tables)) == (1, {"nodes", "cart"}, {"cart"})


def test_a_copy_stands_for_a_file_that_is_lost(tmp_path: Path) -> None:
    """The last good copy goes on, also for a table that changes; it has only certificates, and all may read it."""
    authorities, path, copies = tmp_path / "ca.pem", tmp_path / "services.toml", tmp_path / "copies"
    authorities.write_bytes(b"# comment \xff\n" + CERTIFICATE.read_bytes())
    table = f'{SHOP}tls = true\ntls_ca_file = "{authorities}"\n'
    path.write_text(table)
    file = ServicesFile(Settings().replace(services_file=str(path), certificate_copies_dir=str(copies)))
    file.copy_authorities({}, {})
    good = file.read({})
    kept = list_copies(good)
    assert list(kept) == [str(authorities)]
    copy = Path(kept[str(authorities)])
    assert (list(copies.iterdir()), copy.stat().st_mode & 0o777) == ([copy], 0o644)
    assert "PRIVATE" not in copy.read_text()
    authorities.unlink()
    os.mkfifo(authorities)
    for text in (table, f'{table}balance = "random"\n'):
        path.write_text(text)
        lost = file.read(good.tables, kept)
        reason = "cannot be read: it is not a regular file; replace it by one; its last good content goes on"
        assert lost.faults == (f"{path}: [shop] tls_ca_file = {authorities}: {reason}",)
        assert list_copies(lost) == kept
        assert ("balance" in lost.tables["shop"]) == ("balance" in text)
    copy.write_text("damaged")
    assert file.read(good.tables, kept).names == {"nodes"}


def test_a_copy_that_cannot_be_written_is_a_fault_of_its_service(tmp_path: Path) -> None:
    """Where the directory of copies cannot be made, the service is left out alone until it can."""
    path, copies = tmp_path / "services.toml", tmp_path / "copies"
    path.write_text(f'{SHOP}tls = true\ntls_ca_file = "{CERTIFICATE}"\n[cart]\nroutes = ["/cart"]\n')
    copies.write_text("no directory")
    file = ServicesFile(Settings().replace(services_file=str(path), certificate_copies_dir=str(copies)))
    for _ in range(2):
        file.copy_authorities({}, {})
        services = file.read({})
        assert services.names == {"nodes", "cart"}
        assert f"give {copies} to this user" in services.faults[0]
    copies.unlink()
    file.copy_authorities({}, {})
    assert (file.read({}).faults, len(list(copies.iterdir()))) == ((), 1)
