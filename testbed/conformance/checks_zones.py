"""Zones and DNS records."""

import kit
from kit import ACCOUNT, gone, name, paged, refused


def check_zones(client):
    domain = f"{name()}.example.org"
    zone = client.zones.create(name=domain, account={"id": ACCOUNT}, type="full")
    assert (zone.name, zone.status, zone.account.id) == (domain, "active", ACCOUNT)
    read = client.zones.get(zone_id=zone.id)
    assert (read.id, read.paused) == (zone.id, False)
    assert [one.id for one in client.zones.list(name=domain)] == [zone.id]
    assert client.zones.edit(zone_id=zone.id, paused=True).paused is True
    assert client.zones.get(zone_id=zone.id).paused is True
    refused(400, 1061, client.zones.create, name=domain, account={"id": ACCOUNT}, pointer="/name")
    refused(400, 1049, client.zones.create, name="no dots", account={"id": ACCOUNT}, pointer="/name")
    assert client.zones.delete(zone_id=zone.id).id == zone.id
    gone(7003, client.zones.get, zone_id=zone.id)
    gone(7003, client.zones.delete, zone_id=zone.id)
    gone(7003, client.zones.get, zone_id="nonsense")


def check_zones_over_three_pages(client):
    names = [f"{name('page')}.example.net" for _ in range(5)]
    made = [client.zones.create(name=one, account={"id": ACCOUNT}).id for one in names]
    paged(client.zones.list, made, name="ends_with:.example.net")
    for one in made:
        client.zones.delete(zone_id=one)


def check_dns_records(client):
    records = client.dns.records
    with kit.zone(client) as zone, kit.route(client, "10.77.0.0/16"):
        at = {"zone_id": zone.id}
        app = f"app.{zone.name}"
        made = records.create(**at, name=app, ttl=300, type="A", content="10.77.0.50", proxied=True)
        assert (made.name, made.type, made.content, made.proxied) == (app, "A", "10.77.0.50", True)
        assert made.ttl == 1 and made.private_routing is True and made.use_private_routing is True
        read = records.get(made.id, **at)
        assert (read.content, read.comment) == ("10.77.0.50", None)
        edited = records.edit(made.id, **at, name=app, ttl=1, type="A", comment="seen")
        assert (edited.comment, edited.content) == ("seen", "10.77.0.50")
        put = records.update(made.id, **at, name=app, ttl=120, type="A", content="192.0.2.1")
        assert (put.content, put.proxied, put.ttl, put.comment) == ("192.0.2.1", False, 120, None)
        found = list(records.list(**at, name={"exact": app}))
        assert [one.id for one in found] == [made.id]
        assert list(records.list(**at, type="AAAA")) == []
        assert records.delete(made.id, **at).id == made.id
        gone(81044, records.get, made.id, **at)


def check_dns_records_over_three_pages(client):
    with kit.zone(client) as zone:
        at = {"zone_id": zone.id}
        create = client.dns.records.create
        made = [create(**at, name=f"n{i}.{zone.name}", ttl=1, type="A", content=f"192.0.2.{i}").id for i in range(7)]
        paged(client.dns.records.list, made, per_page=3, **at)


def check_dns_records_are_refused_as_documented(client):
    create = client.dns.records.create
    with kit.zone(client) as zone, kit.route(client, "10.78.0.0/16"):
        at = {"zone_id": zone.id, "name": f"x.{zone.name}", "ttl": 1}
        refused(400, 1004, create, **at, type="A", content="not an address", pointer="/content")
        refused(400, 1004, create, **at, type="A", content="192.0.2.1", extra_body={"ttl": 7}, pointer="/ttl")
        private = {"type": "A", "content": "10.78.0.1", "proxied": True}
        refused(400, 1004, create, **at, **private, private_routing=False, pointer="/private_routing")
        both = {"private_routing": True, "use_private_routing": False}
        refused(400, 1004, create, **at, **private, extra_body=both)
        # A private origin that no route covers.
        refused(400, 1004, create, **at, type="A", content="10.79.0.1", proxied=True, pointer="/content")
        create(**at, type="A", content="192.0.2.1")
        refused(400, 81058, create, **at, type="A", content="192.0.2.1")
        gone(7003, create, zone_id="0" * 32, name="x.example.com", ttl=1, type="A", content="192.0.2.1")


def check_dns_records_with_data(client):
    create = client.dns.records.create
    with kit.zone(client) as zone:
        at = {"zone_id": zone.id, "ttl": 1}
        where = {"priority": 10, "weight": 5, "port": 5060, "target": "sip.example.net"}
        srv = create(**at, name=f"_sip._tcp.{zone.name}", type="SRV", data=where)
        assert (srv.content, srv.data.port, srv.data.target) == ("5 5060 sip.example.net", 5060, "sip.example.net")
        issue = {"flags": 0, "tag": "issue", "value": "ca.example"}
        caa = create(**at, name=zone.name, type="CAA", data=issue)
        assert caa.content == '0 issue "ca.example"'
        again = client.dns.records.edit(caa.id, **at, name=zone.name, type="CAA", data={**issue, "tag": "iodef"})
        assert again.data.tag == "iodef"
        wrong = {**where, "port": 70000}
        refused(400, 1004, create, **at, name=f"x.{zone.name}", type="SRV", data=wrong, pointer="/data/port")


def check_dns_records_in_batches_and_files(client):
    records = client.dns.records
    with kit.zone(client) as zone:
        at = {"zone_id": zone.id}
        posts = [{"name": f"b{i}.{zone.name}", "ttl": 60, "type": "A", "content": f"192.0.2.{i}"} for i in range(3)]
        done = records.batch(**at, posts=posts)
        assert [one.name for one in done.posts] == [one["name"] for one in posts]
        moved = records.batch(**at, deletes=[{"id": done.posts[0].id}], posts=posts[:1])
        assert (len(moved.deletes), len(moved.posts)) == (1, 1)
        refused(400, 1004, records.batch, **at, posts=[{**posts[0], "content": "x"}], pointer="/posts/0/content")
        text = records.export(**at)
        assert f"b1.{zone.name}.\t60\tIN\tA\t192.0.2.1" in text, text
        added = records.import_(**at, file=text + "c 300 IN TXT \"more\"\n", proxied="false")
        assert (added.recs_added, added.total_records_parsed) == (1, 4), added
        assert [one.content for one in records.list(**at, type="TXT")] == ["more"]
