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
