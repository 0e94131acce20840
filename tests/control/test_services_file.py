"""The services file on disk."""

from pathlib import Path

from integration.recorder import CERTIFICATE
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


def test_certificates_that_haproxy_could_not_load_are_a_fault(tmp_path: Path) -> None:
    """A service whose file of authorities is missing or wrong is refused alone, until the file is right."""
    authorities = tmp_path / "ca.pem"
    path = tmp_path / "services.toml"
    path.write_text(f'{SHOP}tls = true\ntls_ca_file = "{authorities}"\n[cart]\nroutes = ["/cart"]\n')
    file = ServicesFile(Settings().replace(services_file=str(path)))
    line = f"{path}: [shop] tls_ca_file = {authorities}: "
    services = file.read({})
    assert services.faults == (f"{line}cannot be read: No such file or directory; it is left out",)
    assert services.names == {"nodes", "cart"}
    authorities.write_text("-----BEGIN CERTIFICATE-----\n")
    assert file.read({}).faults == (f"{line}must be a PEM file with certificates; it is left out",)
    authorities.write_bytes(CERTIFICATE.read_bytes())
    good = file.read({})
    assert (good.faults, good.names) == ((), {"nodes", "shop", "cart"})
    authorities.unlink()
    assert file.read(good.tables).faults == (), "HAProxy has loaded it"
