"""Certificates, settings of zones, the source range, and the addresses of the edge."""

import datetime
import os
import subprocess
import tempfile

import kit
from kit import ACCOUNT, gone, paged, raw, refused


def certificate(domain, days=90):
    """A certificate for the domain and all names below it, and its key, in PEM."""
    with tempfile.TemporaryDirectory() as place:
        names = f"subjectAltName=DNS:{domain},DNS:*.{domain}"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-subj", "/O=Conformance", "-addext", names, "-days", str(days)]
        command += ["-keyout", f"{place}/key", "-out", f"{place}/crt"]
        subprocess.run(command, check=True, capture_output=True, timeout=20)
        made = [open(f"{place}/{one}").read() for one in ("crt", "key")]
    with open(os.environ["SECRETS"], "a") as secrets:
        secrets.write(made[1].splitlines()[1] + "\n")
    return made


def check_custom_certificates(client):
    calls = client.custom_certificates
    with kit.zone(client) as zone:
        at = {"zone_id": zone.id}
        chain, key = certificate(zone.name)
        made = calls.create(**at, certificate=chain, private_key=key, bundle_method="force", type="sni_custom")
        assert (made.status, made.hosts) == ("active", [zone.name, f"*.{zone.name}"]), made
        assert made.issuer == "O=Conformance" and made.signature == "ECDSAWithSHA256", made
        left = made.expires_on - datetime.datetime.now(datetime.timezone.utc)
        assert 88 < left.days < 91, made.expires_on
        read = calls.get(made.id, **at)
        assert read.expires_on == made.expires_on
        assert "PRIVATE" not in str(raw(client, "get", f"/zones/{zone.id}/custom_certificates/{made.id}"))
        newer, newer_key = certificate(zone.name, days=30)
        edited = calls.edit(made.id, **at, certificate=newer, private_key=newer_key, bundle_method="force")
        assert edited.id == made.id and edited.expires_on < made.expires_on, edited
        refused(400, 1200, calls.create, **at, certificate=chain, private_key=newer_key, pointer="/private_key")
        refused(400, 1200, calls.create, **at, certificate="nonsense", private_key=key, pointer="/certificate")
        elsewhere, its_key = certificate("example.net")
        refused(400, 1200, calls.create, **at, certificate=elsewhere, private_key=its_key, pointer="/certificate")
        refused(400, 1200, calls.create, **at, certificate=chain, private_key=key, bundle_method="ubiquitous",
                pointer="/bundle_method")
        assert calls.delete(made.id, **at).id == made.id
        gone(1201, calls.get, made.id, **at)


def check_custom_certificates_over_three_pages(client):
    with kit.zone(client) as zone:
        at = {"zone_id": zone.id}
        pairs = [certificate(zone.name) for _ in range(5)]
        made = [client.custom_certificates.create(**at, certificate=c, private_key=k).id for c, k in pairs]
        paged(client.custom_certificates.list, made, **at)


def check_zone_settings(client):
    calls = client.zones.settings
    with kit.zone(client) as zone:
        at = {"zone_id": zone.id}
        assert calls.get("always_use_https", **at).value == "off"
        edited = calls.edit("always_use_https", **at, value="on")
        assert (edited.id, edited.value, edited.editable) == ("always_use_https", "on", True)
        assert edited.modified_on is not None
        assert calls.get("always_use_https", **at).value == "on"
        assert calls.edit("proxy_read_timeout", **at, value=30).value == 30
        assert calls.edit("ipv6", **at, value="off").value == "off"
        assert calls.edit("ssl", **at, value="flexible").value == "flexible"
        refused(400, 1007, calls.edit, "ssl", **at, value="strict", pointer="/value")
        refused(400, 1007, calls.edit, "proxy_read_timeout", **at, value=0, pointer="/value")
        refused(400, 1007, calls.edit, "ipv6", **at, value="maybe", pointer="/value")
        gone(1006, calls.get, "polish", **at)
        everything = raw(client, "get", f"/zones/{zone.id}/settings")
        assert {"ssl", "ipv6", "always_use_https"} <= {one["id"] for one in everything}


def check_subnets(client):
    calls = client.zero_trust.networks.subnets
    at = {"account_id": ACCOUNT}
    sources = list(calls.list(**at, subnet_types="cloudflare_source"))
    assert [one.network for one in sources] == ["100.64.0.0/12", "2606:4700:cf1:5000::/64"], sources
    assert list(calls.list(**at, subnet_types="warp")) == []
    named = calls.cloudflare_source.update("v4", **at, name="edge", comment="seen", network="100.64.0.0/12")
    assert (named.name, named.comment, named.id) == ("edge", "seen", sources[0].id)
    assert [one.id for one in calls.list(**at, name="edge")] == [named.id]
    update = calls.cloudflare_source.update
    moved = update("v4", **at, network="172.16.0.0/12")
    assert (moved.network, moved.name, moved.id) == ("172.16.0.0/12", "edge", named.id)
    assert [one.network for one in calls.list(**at, address_family="v4")] == ["172.16.0.0/12"]
    assert update("v4", **at, network="100.64.0.0/12").network == "100.64.0.0/12"
    refused(400, 1002, update, "v4", **at, network="192.160.0.0/12", pointer="/network")
    refused(400, 1002, update, "v4", **at, network="100.96.0.0/12", pointer="/network")
    refused(400, 1002, update, "v6", **at, network="100.64.0.0/12", pointer="/network")
    refused(400, 1002, update, "v4", **at, network="100.64.0.1/12", pointer="/network")


def check_addresses_of_the_edge(client):
    shown = client.ips.list()
    assert shown.ipv4_cidrs == ["203.0.113.1/32"] and shown.ipv6_cidrs == [] and shown.etag, shown
