"""Virtual networks, routes, tunnels, and layer-4 apps over them."""

import os

import kit
from kit import ACCOUNT, gone, name, paged, raw, refused


def check_virtual_networks(client):
    vnets = client.zero_trust.networks.virtual_networks
    at = {"account_id": ACCOUNT}
    made = vnets.create(**at, name=name("vnet"), comment="one")
    assert (made.comment, made.is_default_network, made.deleted_at) == ("one", False, None)
    assert vnets.get(made.id, **at).name == made.name
    assert vnets.edit(made.id, **at, comment="two").comment == "two"
    assert made.id in kit.ids(vnets.list(**at))
    assert kit.ids(vnets.list(**at, name=made.name)) == [made.id]
    default = [one for one in vnets.list(**at, is_default=True)]
    assert len(default) == 1
    refused(409, 1005, vnets.create, **at, name=made.name, pointer="/name")
    refused(409, 1006, vnets.delete, default[0].id, **at)
    assert vnets.delete(made.id, **at).id == made.id
    gone(1004, vnets.get, made.id, **at)
    gone(7003, vnets.list, account_id="0" * 32)


def check_routes(client):
    routes = client.zero_trust.networks.routes
    at = {"account_id": ACCOUNT}
    with kit.vnet(client) as vnet, kit.tunnel(client, vnet.id) as tunnel:
        in_vnet = {"virtual_network_id": vnet.id}
        made = routes.create(**at, network="10.0.0.0/24", tunnel_id=tunnel["id"], comment="lan", **in_vnet)
        assert (made.network, made.comment, made.virtual_network_id) == ("10.0.0.0/24", "lan", vnet.id)
        assert routes.get(made.id, **at).tunnel_id == tunnel["id"]
        assert routes.edit(made.id, **at, comment="office").comment == "office"
        listed = list(routes.list(**at, **in_vnet))
        assert [(one.id, one.tunnel_name, one.virtual_network_name) for one in listed] == [
            (made.id, tunnel["name"], vnet.name)
        ]
        assert routes.ips.get("10.0.0.7", **at, **in_vnet).id == made.id
        gone(1015, routes.ips.get, "10.0.1.7", **at, **in_vnet)
        again = {"network": "10.0.0.0/24", "tunnel_id": tunnel["id"], **in_vnet}
        refused(409, 1014, routes.create, **at, **again, pointer="/network")
        bad = {"tunnel_id": tunnel["id"], **in_vnet}
        refused(400, 1002, routes.create, **at, network="10.0.0.1/24", **bad, pointer="/network")
        refused(400, 1002, routes.create, **at, network="100.64.1.0/24", **bad, pointer="/network")
        refused(409, 1006, client.zero_trust.networks.virtual_networks.delete, vnet.id, **at)
        assert routes.delete(made.id, **at).id == made.id
        gone(1015, routes.delete, made.id, **at)


def check_routes_over_three_pages(client):
    routes = client.zero_trust.networks.routes
    with kit.vnet(client) as vnet, kit.tunnel(client, vnet.id) as tunnel:
        to = {"account_id": ACCOUNT, "tunnel_id": tunnel["id"], "virtual_network_id": vnet.id}
        made = [routes.create(network=f"10.{i}.0.0/16", **to).id for i in range(5)]
        paged(routes.list, made, account_id=ACCOUNT, virtual_network_id=vnet.id)


def check_routes_by_network(client):
    networks = client.zero_trust.networks.routes.networks
    at = {"account_id": ACCOUNT}
    with kit.vnet(client) as vnet, kit.tunnel(client, vnet.id) as tunnel:
        in_vnet = {"virtual_network_id": vnet.id}
        # The caller encodes the slash, and the library encodes that once more.
        network = "10.5.0.0%2F16"
        made = networks.create(network, **at, tunnel_id=tunnel["id"], **in_vnet)
        assert made.network == "10.5.0.0/16"
        assert networks.delete(network, **at, **in_vnet).id == made.id
        gone(1015, networks.delete, network, **at, **in_vnet)


def check_hostname_routes(client):
    calls = client.zero_trust.networks.hostname_routes
    at = {"account_id": ACCOUNT}
    with kit.vnet(client) as vnet, kit.tunnel(client, vnet.id) as tunnel:
        client.zero_trust.networks.routes.create(
            **at, network="10.0.0.0/24", tunnel_id=tunnel["id"], virtual_network_id=vnet.id
        )
        to = {**at, "tunnel_id": tunnel["id"]}
        by = {"extra_body": {"resolver_ips": ["10.0.0.53"]}}
        made = calls.create(**to, hostname="wiki.internal", comment="wiki", **by)
        assert (made.hostname, made.comment, made.tunnel_name) == ("wiki.internal", "wiki", tunnel["name"])
        assert made.tunnel_id == tunnel["id"] and made.deleted_at is None and made.created_at
        assert calls.get(made.id, **at).resolver_ips == ["10.0.0.53"]
        assert calls.edit(made.id, **at, comment="office").comment == "office"
        assert kit.ids(calls.list(**at, hostname="WIKI")) == [made.id]
        assert kit.ids(calls.list(**at, tunnel_id=tunnel["id"], comment="wiki")) == []
        # The product's tunnels bring a resolver along; those that there are here do not.
        refused(400, 1020, calls.create, **to, hostname="a.internal", pointer="/resolver_ips")
        away = {"extra_body": {"resolver_ips": ["10.9.9.9"]}}
        refused(400, 1020, calls.create, **to, hostname="a.internal", **away, pointer="/resolver_ips/0")
        refused(409, 1021, calls.create, **to, hostname="wiki.internal", **by, pointer="/hostname")
        refused(409, 1021, calls.create, **to, hostname="*.internal", **by, pointer="/hostname")
        refused(400, 1020, calls.create, **to, hostname="a..b", **by, pointer="/hostname")
        more = [calls.create(**to, hostname=f"h{i}.internal", **by).id for i in range(5)]
        paged(calls.list, [made.id, *more], **to)
        with kit.zone(client) as zone:
            record = client.dns.records.create(
                zone_id=zone.id, type="CNAME", name=f"w.{zone.name}", content="wiki.internal", proxied=True, ttl=1
            )
            assert record.content == "wiki.internal"
            app = client.spectrum.apps.create(
                zone_id=zone.id,
                dns={"type": "CNAME", "name": f"db.{zone.name}"},
                protocol="tcp/5432",
                origin_dns={"name": "wiki.internal"},
                origin_port=5432,
            )
            assert app.origin_dns.name == "wiki.internal" and app.origin_port == 5432
            unknown = {"dns": {"type": "CNAME", "name": f"x.{zone.name}"}, "protocol": "tcp/5433"}
            unknown |= {"origin_dns": {"name": "example.org"}, "origin_port": 1}
            refused(400, 11001, client.spectrum.apps.create, zone_id=zone.id, **unknown)
        gone_one = calls.delete(made.id, **at)
        assert gone_one.id == made.id and gone_one.deleted_at is not None
        gone(1022, calls.get, made.id, **at)


def check_wireguard_tunnels(client):
    path = f"/accounts/{ACCOUNT}/wireguard_tunnels"
    made = raw(client, "post", path, {"name": name("office"), "generate_peer_key": True})
    assert made["peer_private_key"] and "[Interface]" in made["config"]
    one = f"{path}/{made['id']}"
    read = raw(client, "get", one)
    assert read["name"] == made["name"] and "peer_private_key" not in read and "config" not in read
    assert raw(client, "patch", one, {"mtu": 1380})["mtu"] == 1380
    refused(400, 1003, raw, client, "patch", one, {"mtu": 1}, pointer="/mtu")
    refused(400, 1003, raw, client, "patch", one, {"colour": "red"}, pointer="/colour")
    refused(409, 1013, raw, client, "post", path, {"name": made["name"], "generate_peer_key": True})
    raw(client, "delete", one)
    gone(1016, raw, client, "get", one)


def check_spectrum_apps(client):
    apps = client.spectrum.apps
    with kit.vnet(client) as vnet, kit.route(client, "10.0.0.0/24", vnet.id), kit.zone(client) as zone:
        at = {"zone_id": zone.id}
        body = {
            "dns": {"type": "CNAME", "name": f"redis.{zone.name}"},
            "protocol": "tcp/6379",
            "origin_direct": ["tcp://10.0.0.50:6379"],
            "extra_body": {"virtual_network_id": vnet.id},
        }
        made = apps.create(**at, **body)
        assert (made.protocol, made.origin_direct) == ("tcp/6379", ["tcp://10.0.0.50:6379"])
        assert made.virtual_network_id == vnet.id
        assert apps.get(made.id, **at).dns.name == f"redis.{zone.name}"
        changed = apps.update(made.id, **at, **{**body, "origin_direct": ["tcp://10.0.0.51:6379"]})
        assert changed.origin_direct == ["tcp://10.0.0.51:6379"]
        assert kit.ids(apps.list(**at)) == [made.id]
        two = {"origin_direct": ["tcp://10.0.0.50:1", "tcp://10.0.0.51:1"]}
        refused(400, 11042, apps.create, **at, **{**body, **two})
        away = {"protocol": "tcp/6380", "origin_direct": ["tcp://10.9.9.9:1"]}
        refused(400, 11044, apps.create, **at, **{**body, **away})
        refused(400, 11045, apps.create, **at, **{**body, "extra_body": {"virtual_network_id": "x"}})
        assert apps.delete(made.id, **at).id == made.id
        gone(10006, apps.get, made.id, **at)


def check_spectrum_apps_over_three_pages(client):
    apps = client.spectrum.apps
    with kit.vnet(client) as vnet, kit.route(client, "10.0.0.0/24", vnet.id), kit.zone(client) as zone:
        made = []
        for port in range(7001, 7006):
            app = apps.create(
                zone_id=zone.id,
                dns={"type": "CNAME", "name": f"p{port}.{zone.name}"},
                protocol=f"tcp/{port}",
                origin_direct=[f"tcp://10.0.0.50:{port}"],
                extra_body={"virtual_network_id": vnet.id},
            )
            made.append(app.id)
        paged(apps.list, made, zone_id=zone.id)


def check_addresses_of_the_edge(client):
    assert client.ips.list().ipv4_cidrs == [f"{os.environ['EDGE_ADDRESS']}/32"]
