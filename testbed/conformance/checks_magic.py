"""Tunnels of the product's kinds, and static routes: shapes, bulk forms, checks alone, documented errors."""

import itertools
import os

import kit
from kit import ACCOUNT, gone, name, refused, secret

AT = {"account_id": ACCOUNT}
EDGE = os.environ["UNDERLAY_ADDRESS"]
ALONE = {"extra_query": {"validate_only": "true"}}
links = itertools.count()


def link():
    """A /31 that no other check has: ours, and the customer's side."""
    n = 2 * next(links)
    return f"10.250.{n // 256}.{n % 256}/31", f"10.250.{n // 256}.{n % 256 + 1}"


def gre(**fields):
    n = next(links)
    customer = f"198.18.{n // 256}.{n % 256}"
    body = {"name": name("g")[:15], "cloudflare_gre_endpoint": EDGE, "customer_gre_endpoint": customer}
    return {**AT, **body, "interface_address": link()[0], **fields}


def ipsec(**fields):
    n = next(links)
    body = {"name": name("ipsec"), "cloudflare_endpoint": EDGE, "customer_endpoint": f"198.19.{n // 256}.{n % 256}"}
    return {**AT, **body, "interface_address": link()[0], **fields}


def check_gre_tunnels(client):
    tunnels = client.magic_transit.gre_tunnels
    body = gre(description="lab", ttl=32, mtu=1400, health_check={"rate": "low", "type": "request"})
    assert tunnels.create(**body, **ALONE).name == body["name"]
    assert not [one for one in tunnels.list(**AT).gre_tunnels if one.name == body["name"]]
    made = tunnels.create(**body)
    assert len(made.id) == 32 and (made.ttl, made.mtu, made.description) == (32, 1400, "lab")
    assert (made.health_check.rate, made.health_check.direction, made.health_check.enabled) == ("low", "bidirectional", True)
    assert made.gre_tunnels[0]["id"] == made.id  # as the documents show it
    read = tunnels.get(made.id, **AT).gre_tunnel
    assert (read.interface_address, read.created_on) == (body["interface_address"], made.created_on)
    new = tunnels.get(made.id, **AT, x_magic_new_hc_target=True).gre_tunnel.health_check.target
    assert new.saved == "" and new.effective
    changed = tunnels.update(made.id, **{**body, "mtu": 1450}, x_magic_new_hc_target=True)
    assert changed.modified and changed.modified_gre_tunnel.mtu == 1450
    assert not tunnels.update(made.id, **{**body, "mtu": 1300}, **ALONE).modified
    assert tunnels.get(made.id, **AT).gre_tunnel.mtu == 1450
    second = tunnels.create(**gre())
    both = {"gre_tunnels": [{"id": made.id, "ttl": 60}, {"id": second.id, "ttl": 61}]}
    changed = tunnels.bulk_update(**AT, body=both)
    assert [one.ttl for one in changed.modified_gre_tunnels] == [60, 61] and changed.modified
    assert {made.id, second.id} <= {one.id for one in tunnels.list(**AT).gre_tunnels}
    refused(409, 1013, tunnels.create, **{**gre(), "name": made.name}, pointer="/name")
    link = {"interface_address": made.interface_address}
    refused(409, 1013, tunnels.create, **{**gre(), **link}, pointer="/interface_address")
    ends = {"customer_gre_endpoint": made.customer_gre_endpoint}
    refused(409, 1013, tunnels.create, **{**gre(), **ends}, pointer="/customer_gre_endpoint")
    refused(400, 1003, tunnels.create, **gre(name="has spaces"), pointer="/name")
    refused(400, 1003, tunnels.create, **gre(mtu=500), pointer="/mtu")
    refused(400, 1003, tunnels.create, **gre(interface_address="192.0.2.1/31"), pointer="/interface_address")
    refused(400, 1003, tunnels.create, **gre(automatic_return_routing=True), pointer="/automatic_return_routing")
    refused(400, 1003, tunnels.create, **gre(bgp={"customer_asn": 65000}), pointer="/bgp")
    for one in (made, second):
        gone_ = tunnels.delete(one.id, **AT)
        assert gone_.deleted and gone_.deleted_gre_tunnel.id == one.id
    gone(1016, tunnels.get, made.id, **AT)
    gone(7003, tunnels.list, account_id="0" * 32)


def check_ipsec_tunnels(client):
    tunnels = client.magic_transit.ipsec_tunnels
    key = secret(name("a-pre-shared-key"))
    body = ipsec(psk=key, replay_protection=True)
    made = tunnels.create(**body)
    assert made.replay_protection and made.psk_metadata.last_generated_on
    assert key not in made.to_json()
    made_key = tunnels.psk_generate(made.id, **AT)
    assert len(secret(made_key.psk)) >= 32 and made_key.ipsec_tunnel_id == made.id
    again = tunnels.psk_generate(made.id, **AT)
    assert secret(again.psk) != made_key.psk
    read = tunnels.get(made.id, **AT).ipsec_tunnel
    assert read.psk_metadata.last_generated_on == again.psk_metadata.last_generated_on
    assert again.psk not in read.to_json() and again.psk not in tunnels.list(**AT).to_json()
    fqdn = f"office.{ACCOUNT}.custom.ipsec.cloudflare.com"
    plain = {key: value for key, value in body.items() if key != "psk"}
    changed = tunnels.update(made.id, **plain, custom_remote_identities={"fqdn_id": fqdn})
    assert changed.modified_ipsec_tunnel.custom_remote_identities.fqdn_id == fqdn
    bulk = tunnels.bulk_update(**AT, body={"ipsec_tunnels": [{"id": made.id, "description": "x"}]})
    assert bulk.modified_ipsec_tunnels[0].description == "x"
    keys = [{"id": made.id, "psk": secret(name("another-key"))}, {"id": "0" * 32, "psk": "x" * 20}]
    done = tunnels.psk_set(**AT, psks=keys)
    assert list(done.successfully_applied_psks) == [made.id] and list(done.unapplied_psks) == ["0" * 32]
    refused(400, 1003, tunnels.create, **ipsec(psk="short"), pointer="/psk")
    bad = {"fqdn_id": "office.example.com"}
    refused(400, 1003, tunnels.create, **ipsec(custom_remote_identities=bad), pointer="/custom_remote_identities/fqdn_id")
    refused(400, 1003, tunnels.create, **ipsec(customer_endpoint="2001:db8::1"), pointer="/customer_endpoint")
    assert tunnels.delete(made.id, **AT).deleted_ipsec_tunnel.id == made.id
    gone(1016, tunnels.get, made.id, **AT)


def check_cf_interconnects(client):
    interconnects = client.magic_transit.cf_interconnects
    # The product makes them by other means; ours by POST, on a device of the edge.
    path = f"/accounts/{ACCOUNT}/magic/cf_interconnects"
    body = {"name": name("dc"), "device": "cni0", "interface_address": link()[0]}
    made = kit.raw(client, "post", path, body)
    read = interconnects.get(made["id"], **AT).interconnect
    assert (read.name, read.interface_address, read.mtu) == (body["name"], body["interface_address"], 1476)
    changed = interconnects.update(made["id"], **AT, description="rack 7", mtu=1500)
    assert (changed.modified, changed.modified_interconnect.mtu) == (True, 1500)
    bulk = interconnects.bulk_update(**AT, body={"interconnects": [{"id": made["id"], "mtu": 1400}]})
    assert bulk.modified_interconnects[0].mtu == 1400
    assert [one.id for one in interconnects.list(**AT).interconnects] == [made["id"]]
    refused(400, 1003, interconnects.update, made["id"], **AT, mtu=1, pointer="/mtu")
    again = {**body, "name": name("dc"), "interface_address": link()[0]}
    refused(409, 1013, kit.raw, client, "post", path, again, pointer="/device")
    away = {**again, "device": "eth99"}
    refused(400, 1003, kit.raw, client, "post", path, away, pointer="/device")
    kit.raw(client, "delete", f"{path}/{made['id']}")
    gone(1016, interconnects.get, made["id"], **AT)


def check_static_routes(client):
    routes, tunnels = client.magic_transit.routes, client.magic_transit.ipsec_tunnels
    (ours, side), (other, second_side) = link(), link()
    first = tunnels.create(**ipsec(interface_address=ours))
    second = tunnels.create(**ipsec(interface_address=other))
    body = {"prefix": "10.20.0.0/16", "nexthop": side, "priority": 100, "weight": 20, "description": "lab"}
    assert routes.create(**AT, **body, **ALONE).prefix == body["prefix"]
    assert routes.list(**AT).routes == []
    made = routes.create(**AT, **body)
    assert (made.nexthop, made.priority, made.weight, len(made.id)) == (side, 100, 20, 32)
    equal = routes.create(**AT, prefix=body["prefix"], nexthop=second_side, priority=100)
    assert routes.get(made.id, **AT).route.description == "lab"
    changed = routes.update(made.id, **AT, **{**body, "priority": 50})
    assert changed.modified and changed.modified_route.priority == 50
    entry = {"id": equal.id, "prefix": "10.21.0.0/16", "nexthop": second_side, "priority": 7}
    bulk = routes.bulk_update(**AT, routes=[entry])
    assert bulk.modified_routes[0].prefix == "10.21.0.0/16"
    found = client.zero_trust.networks.routes.ips.get("10.20.0.1", **AT)
    assert found.network == body["prefix"]
    new = {"prefix": "10.22.0.0/16", "priority": 1}
    refused(409, 1014, routes.create, **AT, **body, pointer="/nexthop")
    refused(400, 1002, routes.create, **AT, **new, nexthop="192.0.2.1", pointer="/nexthop")
    refused(400, 1002, routes.create, **AT, **new, nexthop=ours.split("/")[0], pointer="/nexthop")
    refused(400, 1002, routes.create, **AT, **{**new, "prefix": "10.22.0.1/16"}, nexthop=side, pointer="/prefix")
    refused(400, 1002, routes.create, **AT, **new, nexthop=side, weight=300, pointer="/weight")
    scope = {"colo_names": ["den01"]}
    refused(400, 1002, routes.create, **AT, **new, nexthop=side, scope=scope, pointer="/scope/colo_names")
    refused(409, 1018, tunnels.delete, first.id, **AT)
    assert routes.delete(made.id, **AT).deleted_route.id == made.id
    gone(1015, routes.get, made.id, **AT)
    assert [one.id for one in routes.empty(**AT).deleted_routes] == [equal.id]
    for one in (first, second):
        tunnels.delete(one.id, **AT)


def check_routes_of_both_products_lead_into_any_tunnel(client):
    tunnels, routes = client.magic_transit.ipsec_tunnels, client.zero_trust.networks.routes
    made = tunnels.create(**ipsec())
    route = routes.create(**AT, network="10.30.0.0/16", tunnel_id=made.id)
    listed = [one for one in routes.list(**AT, tun_types=["ip_sec"])]
    assert [(one.id, one.tun_type, one.tunnel_name) for one in listed] == [(route.id, "ip_sec", made.name)]
    assert list(routes.list(**AT, tun_types=["gre"])) == []
    tunnels.delete(made.id, **AT)
    gone(1015, routes.get, route.id, **AT)
