"""Accounts and tokens."""

import kit
from kit import ACCOUNT, refused


def check_accounts(client):
    assert ACCOUNT in kit.ids(client.accounts.list())
    assert client.accounts.get(account_id=ACCOUNT).id == ACCOUNT
    kit.gone(7003, client.accounts.get, account_id="0" * 32)


def check_a_token_is_needed(client):
    assert client.user.tokens.verify().status == "active"
    refused(403, 10000, kit.client("nonsense").user.tokens.verify)


def groups(client, *names):
    found = {one.name: one.id for one in client.user.tokens.permission_groups.list()}
    return [{"id": found[one]} for one in names]


def check_user_tokens(client):
    tokens = client.user.tokens
    policies = [
        {
            "effect": "allow",
            "permission_groups": groups(client, "Zone Read", "DNS Write"),
            "resources": {"com.cloudflare.api.account.zone.*": "*"},
        }
    ]
    condition = {"request_ip": {"in": ["127.0.0.0/8"], "not_in": ["192.0.2.0/24"]}}
    made = tokens.create(
        name="scoped", policies=policies, condition=condition, expires_on="2120-01-01T00:00:00Z"
    )
    assert made.value and made.status == "active" and made.expires_on.year == 2120
    scoped = kit.client(kit.secret(made.value))
    verified = scoped.user.tokens.verify()
    assert (verified.id, verified.status) == (made.id, "active")
    read = tokens.get(made.id)
    assert read.condition.request_ip.in_ == ["127.0.0.0/8"] and not getattr(read, "value", None)
    assert [one.name for one in read.policies[0].permission_groups] == ["Zone Read", "DNS Write"]
    with kit.zone(client) as zone:
        assert scoped.zones.get(zone_id=zone.id).id == zone.id
        record = {"zone_id": zone.id, "name": f"a.{zone.name}", "ttl": 1, "type": "A", "content": "192.0.2.1"}
        scoped.dns.records.create(**record)
        refused(403, 9109, scoped.zones.delete, zone_id=zone.id)
    refused(403, 9109, scoped.user.tokens.list)
    away = {"request_ip": {"in": ["198.51.100.0/24"]}}
    tokens.update(made.id, name="elsewhere", policies=policies, condition=away)
    refused(403, 10000, scoped.user.tokens.verify)
    tokens.update(made.id, name="here", policies=policies)
    rolled = tokens.value.update(made.id)
    refused(403, 10000, scoped.user.tokens.verify)
    assert kit.client(kit.secret(rolled)).user.tokens.verify().id == made.id
    assert tokens.delete(made.id).id == made.id
    kit.gone(1003, tokens.get, made.id)
    refused(400, 1001, tokens.create, name="none", policies=[], pointer="/policies")


def check_user_tokens_over_three_pages(client):
    policies = [
        {
            "effect": "allow",
            "permission_groups": groups(client, "Zone Read"),
            "resources": {"com.cloudflare.api.account.zone.*": "*"},
        }
    ]
    made = [client.user.tokens.create(name=f"page-{i}", policies=policies).id for i in range(5)]
    kit.paged(client.user.tokens.list, made)
    for one in made:
        client.user.tokens.delete(one)


def check_account_tokens(client):
    tokens, at = client.accounts.tokens, {"account_id": ACCOUNT}
    found = {one.name: one.id for one in tokens.permission_groups.list(**at)}
    policies = [
        {
            "effect": "allow",
            "permission_groups": [{"id": found["Cloudflare One Networks Read"]}],
            "resources": {f"com.cloudflare.api.account.{ACCOUNT}": "*"},
        }
    ]
    made = tokens.create(**at, name="networks", policies=policies)
    scoped = kit.client(made.value)
    assert scoped.accounts.tokens.verify(**at).id == made.id
    assert kit.ids(scoped.zero_trust.networks.virtual_networks.list(**at))
    refused(403, 9109, scoped.zero_trust.networks.virtual_networks.create, **at, name="no")
    assert made.id in kit.ids(tokens.list(**at)) and made.id not in kit.ids(client.user.tokens.list())
    assert tokens.delete(made.id, **at).id == made.id


def check_audit_logs(client):
    with kit.zone(client) as zone:
        client.zones.edit(zone_id=zone.id, paused=True)
    entries = list(client.audit_logs.list(account_id=ACCOUNT, zone={"name": zone.name}, per_page=1))
    assert [one.action.type for one in entries] == ["delete", "update", "create"]
    assert all(one.resource.id == zone.id and one.actor.ip == "127.0.0.1" for one in entries)
    assert entries[1].old_value != entries[1].new_value and '"paused":true' in entries[1].new_value
    found = client.audit_logs.list(account_id=ACCOUNT, action={"type": "nothing"})
    assert list(found) == []


def check_the_key_and_email_of_old_are_refused_with_what_to_do(_):
    import cloudflare

    old = cloudflare.Cloudflare(base_url=kit.API, api_email="a@example.com", api_key="0" * 37, max_retries=0)
    error = refused(403, 9106, old.user.tokens.verify)
    assert "API token" in error.body["errors"][0]["message"]
