"""The operator's directory of certificates."""

from pathlib import Path

from integration.recorder import CERTIFICATE
from serf_haproxy.control.certificate_files import CertificateFiles


def test_a_link_that_leads_nowhere_is_a_fault_and_no_removal(tmp_path: Path) -> None:
    """An ACME client that renews a chain of links must not end a host by a broken one; a file that is gone is gone."""
    (tmp_path / "a.pem").symlink_to("nowhere.pem")
    (tmp_path / "b.pem").write_bytes(CERTIFICATE.read_bytes())
    files = CertificateFiles(str(tmp_path))
    assert files.read().faults == {"a.pem": "is a link that leads to no file; renew the link"}
    (tmp_path / "a.pem").unlink()
    found = files.read()
    assert (found.faults, list(found.certificates)) == ({}, ["b.pem"])
