"""Makes one of everything from the examples in /openapi.json, and prints the ids as variables of the shell."""
import json
import os
import sys
import urllib.request

URL, TOKEN, ACCOUNT = (os.environ[name] for name in ("API_URL", "API_TOKEN", "ACCOUNT_ID"))


def call(method, path, body=None):
    request = urllib.request.Request(
        URL + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as refused:
        sys.exit(f"{method} {path} {body}: {refused.read().decode()}")


def made(path, body):
    return call("POST", "/client/v4" + path, body)["result"]["id"]


document = call("GET", "/openapi.json")
account = f"/accounts/{ACCOUNT}"
vnets = call("GET", f"/client/v4{account}/teamnet/virtual_networks")["result"]
ids = {"VNET_ID": vnets[0]["id"], "NOBODY_ID": "0" * 32}


def example(path, number="1"):
    content = document["paths"]["/client/v4" + path]["post"]["requestBody"]["content"]
    text = json.dumps(content["application/json"]["examples"][number]["value"])
    known = {
        "023e105f4ecef8ad9ca31a8372d0c353": ACCOUNT,
        "f70ff985-a4ef-4643-bbbc-4a0ed4fc8415": ids["VNET_ID"],
        "c1744f8b-faa1-48a4-9e5c-02ac921467fa": ids.get("WIREGUARD_ID", ""),
    }
    for placeholder, real in known.items():
        text = text.replace(placeholder, real)
    return json.loads(text)


ids["ZONE_ID"] = made("/zones", {"name": "example.com", "account": {"id": ACCOUNT}})
zone = f"/zones/{ids['ZONE_ID']}"
ids["WIREGUARD_ID"] = made(f"{account}/wireguard_tunnels", example("/accounts/{account}/wireguard_tunnels"))
for name, kind in [("GRE_ID", "gre_tunnels"), ("IPSEC_ID", "ipsec_tunnels"), ("CNI_ID", "cf_interconnects")]:
    ids[name] = made(f"{account}/magic/{kind}", example(f"/accounts/{{account}}/magic/{kind}"))
routes = f"{account}/teamnet/routes"
covering = {"network": "10.0.0.0/24", "tunnel_id": ids["WIREGUARD_ID"]}
made(routes, covering)
ids["ROUTE_ID"] = made(routes, example("/accounts/{account}/teamnet/routes"))
hostnames = "/accounts/{account}/zerotrust/routes/hostname"
ids["HOSTNAME_ID"] = made(f"{account}/zerotrust/routes/hostname", example(hostnames))
static = {**example("/accounts/{account}/magic/routes"), "nexthop": "10.255.9.1"}
ids["STATIC_ID"] = made(f"{account}/magic/routes", static)
ids["RECORD_ID"] = made(f"{zone}/dns_records", example("/zones/{zone}/dns_records"))
certificates = "/zones/{zone}/custom_certificates"
ids["CERTIFICATE_ID"] = made(f"{zone}/custom_certificates", example(certificates))
ids["APP_ID"] = made(f"{zone}/spectrum/apps", example("/zones/{zone}/spectrum/apps"))
for name, value in ids.items():
    print(f"export {name}={value}")
