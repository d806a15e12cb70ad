"""What the checks share: a client, refusals, pages, and objects that most checks need."""

import contextlib
import os
import uuid

import cloudflare
import httpx

API = os.environ["API_URL"] + "/client/v4"
TOKEN = os.environ["API_TOKEN"]
ACCOUNT = os.environ["ACCOUNT_ID"]


def client(token=TOKEN):
    """The official client. It does not retry: what is answered is what is judged."""
    return cloudflare.Cloudflare(base_url=API, api_token=token, max_retries=0, timeout=10)


def secret(text):
    """Neither the log nor the store must have it: conformance.sh looks."""
    with open(os.environ["SECRETS"], "a") as file:
        file.write(text + "\n")
    return text


def name(prefix="check"):
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def refused(status, code, call, *args, pointer=None, **kwargs):
    """The call is refused with this status and code, in the client's own exception; the error."""
    try:
        answer = call(*args, **kwargs)
    except cloudflare.APIStatusError as error:
        codes = [one.code for one in error.errors]
        assert error.status_code == status and code in codes, f"{error.status_code} {codes}: {error}"
        item = error.body["errors"][0]
        assert item["message"], error.body
        assert error.body["success"] is False and error.body["result"] is None, error.body
        if pointer is not None:
            assert item["source"]["pointer"] == pointer, error.body
        return error
    raise AssertionError(f"not refused with {status} {code}, but answered {answer!r}")


def gone(code, call, *args, **kwargs):
    return refused(404, code, call, *args, **kwargs)


def ids(listed):
    """The ids of a list, over as many pages as it has: the library asks for them while it is read."""
    found = [one.id for one in listed]
    assert len(found) == len(set(found)), f"an object came twice: {found}"
    return found


def paged(list_, wanted, per_page=2, **kwargs):
    """The objects come over three pages or more, each once."""
    assert len(wanted) > 2 * per_page
    found = ids(list_(per_page=per_page, **kwargs))
    assert set(wanted) <= set(found), f"{wanted} are not all in {found}"
    past = list_(per_page=per_page, page=1000, **kwargs)
    assert past.result == [], past


def raw(client, method, path, body=None):
    """A call that the library has no method for; its result."""
    arguments = {} if body is None else {"body": body}
    answer = getattr(client, method)(path, cast_to=httpx.Response, **arguments).json()
    assert answer["success"] is True, answer
    return answer["result"]


@contextlib.contextmanager
def zone(client, domain=None):
    made = client.zones.create(name=domain or f"{name()}.example.com", account={"id": ACCOUNT}, type="full")
    try:
        yield made
    finally:
        client.zones.delete(zone_id=made.id)


@contextlib.contextmanager
def vnet(client):
    networks = client.zero_trust.networks.virtual_networks
    made = networks.create(account_id=ACCOUNT, name=name("vnet"))
    try:
        yield made
    finally:
        networks.delete(made.id, account_id=ACCOUNT)


@contextlib.contextmanager
def tunnel(client, vnet=None):
    """A WireGuard tunnel, a resource that is ours alone."""
    path = f"/accounts/{ACCOUNT}/wireguard_tunnels"
    body = {"name": name("tunnel"), "generate_peer_key": True}
    if vnet:
        body["virtual_network_id"] = vnet
    made = raw(client, "post", path, body)
    try:
        yield made
    finally:
        raw(client, "delete", f"{path}/{made['id']}")


@contextlib.contextmanager
def route(client, network, vnet=None):
    """A route, with a tunnel of its own."""
    routes = client.zero_trust.networks.routes
    with tunnel(client, vnet) as through:
        optional = {"virtual_network_id": vnet} if vnet else {}
        made = routes.create(account_id=ACCOUNT, network=network, tunnel_id=through["id"], **optional)
        yield made
