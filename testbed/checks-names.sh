# shellcheck shell=bash disable=SC2034
# Checks of the edge's DNS server, with Debian's dig and named-checkzone. Sourced by check.sh.

ask() { client dig +norecurse +time=2 +tries=2 "@$DNS_IP" "$@"; }
short() { ask +short "$@" | sort | tr '\n' ' ' | sed 's/ $//'; }
header() { ask +noall +comments "$@"; }

# Proxied names and apps lead to the edge, and nothing says what is behind it.
check_names_proxied() {
  local name way
  for name in app.example.com wiki.example.com redis.example.com; do
    for way in +notcp +tcp; do
      expect "$(short "$way" "$name" A)" "$EDGE_IP" "A of $name, $way"
      expect "$(short "$way" "$name" AAAA)" "$EDGE_IP6" "AAAA of $name, $way"
    done
    expect "$(short "$name" ANY)" '"RFC8482" ""' "ANY of $name"
  done
  # 0x20: the case of the question comes back.
  expect_like "$(ask +noall +answer aPP.eXample.cOM A)" 'aPP.eXample.cOM.*' "the answer's owner"
  expect "$(client curl -sS -m 15 --resolve "app.example.com:80:$(short app.example.com A)" http://app.example.com/)" \
    origin1 "HTTP to the address that DNS gives"
}

check_names_denied() {
  local answer
  answer=$(header nothing.example.com A)
  expect_like "$answer" '*status: NXDOMAIN*flags: qr aa;*AUTHORITY: 1*' "a name that is not there"
  expect_like "$(ask +noall +authority nothing.example.com A)" 'example.com.*300*IN*SOA*ns1.example.net.*' "its SOA"
  expect_like "$(header app.example.com MX)" '*status: NOERROR*ANSWER: 0*AUTHORITY: 1*' "a type that is not there"
  expect "$(short example.com NS)" "ns1.example.net. ns2.example.net." "NS of the zone"
  expect_like "$(header example.org A)" '*status: REFUSED*' "a zone of somebody else"
  expect_like "$(client dig +recurse +time=2 "@$DNS_IP" example.org)" '*recursion requested but not available*' "recursion"
  expect_like "$(ask example.com AXFR 2>&1)" '*Transfer failed*' "a transfer"
  expect_like "$(header version.bind CH TXT)" '*status: REFUSED*' "the class CH"
  expect_like "$(header +edns=1 +noednsneg app.example.com)" '*status: BADVERS*' "a later EDNS"
  expect_like "$(header +bufsize=4096 app.example.com)" '*udp: 1232*' "our EDNS buffer"
}

# TYPE CONTENT, and what dig shows if that is something else.
every_type() {
  cat <<'TYPES'
A|192.0.2.1
AAAA|2001:db8::1
CAA|0 issue "letsencrypt.org"
CERT|9 1 2 TEpBNFY=|9 1 DH TEpBNFY=|9 1 2 TEpBNFY=
CNAME|other.example.net|other.example.net.
DNSKEY|257 3 13 AQID
DS|1 13 2 0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b|1 13 2 0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B
HTTPS|1 . alpn="h3,h2"
LOC|37 46 46.000 N 122 23 35.000 W 0.00m 100m 10m 1m
MX|10 mail.example.net|10 mail.example.net.
NAPTR|100 10 "u" "E2U+sip" "!^.*$!sip:a@example.com!" .
NS|ns.example.net|ns.example.net.
OPENPGPKEY|AQID
PTR|host.example.net|host.example.net.
SMIMEA|3 1 1 0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b|3 1 1 0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B
SRV|10 5 5060 sip.example.net|10 5 5060 sip.example.net.
SSHFP|4 2 0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b|4 2 0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B
SVCB|1 svc.example.net port=8443 ipv4hint=192.0.2.1|1 svc.example.net. port=8443 ipv4hint=192.0.2.1
TLSA|3 1 1 0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b|3 1 1 0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B0A0B
TXT|v=spf1 include:example.net -all|"v=spf1 include:example.net -all"
URI|10 1 "https://example.net/"
TYPES
}

# A batch of one record of each type, in one transaction, and another that takes them out.
make_types() {
  local type content rest posts='[]'
  while IFS='|' read -r type content rest; do
    posts=$(jq -c --arg t "$type" --arg c "$content" '. + [{type: $t, name: ("t-" + $t), content: $c, comment: "by a check"}]' <<<"$posts")
  done < <(every_type)
  api POST "/zones/$ZONE_ID/dns_records/batch" "{\"posts\": $posts}"
}

remove_records() {
  api POST "/zones/$ZONE_ID/dns_records/batch" "$(jq -c '{deletes: [.posts[] | {id}]}' <<<"$1")" >/dev/null
}

check_names_types() {
  local made rc=0
  made=$(make_types)
  (dig_types) || rc=$?
  remove_records "$made"
  return "$rc"
}

dig_types() {
  local type content shown seen section count=0
  while IFS='|' read -r type content shown; do
    section=answer
    # Names with NS records are others' to answer for.
    [ "$type" != NS ] || section=authority
    seen=$(ask +noall "+$section" +nosplit +nottlid +nocl "t-$type.example.com" "$type" | awk -v t="$type" '$2 == t { sub(/^[^ \t]+[ \t]+[^ \t]+[ \t]+/, ""); print }')
    case "|${shown:-$content}|" in
      *"|$seen|"*) count=$((count + 1)) ;;
      *) note "$type: expected '${shown:-$content}', saw '$seen'" && return 1 ;;
    esac
  done < <(every_type)
  expect "$count" 21 "types that dig shows as they were given"
}

# The zone as a file: BIND reads it without a complaint, and what it reads is what was meant.
check_names_file() {
  local made rc=0
  made=$(make_types)
  (export_zone) || rc=$?
  remove_records "$made"
  return "$rc"
}

export_zone() {
  local file=$RUN/example.com.zone
  in_ns pc-edge curl -sS -m 10 -H "Authorization: Bearer $API_TOKEN" -o "$file" "$API_URL/zones/$ZONE_ID/dns_records/export"
  # -k: names such as t-A are no host names in the eyes of older rules; -i none: others' names are not looked up.
  expect_like "$(PATH=$PATH:/usr/sbin named-checkzone -i none -k ignore example.com "$file" 2>&1)" '*loaded serial*OK' "named-checkzone" || return 1
  expect "$(grep -c 'cf-proxied:true' "$file")" "$(api GET "/zones/$ZONE_ID/dns_records?proxied=true" | jq length)" "proxied records in the file"
  rm -f "$file"
}

# A change is seen by the next question.
check_names_change() {
  local id n
  id=$(api POST "/zones/$ZONE_ID/dns_records" '{"type":"A", "name":"moving", "content":"192.0.2.1", "ttl":60}' | field id)
  expect "$(short moving.example.com A)" 192.0.2.1 "a record that was made"
  for n in 2 3 4; do
    api PATCH "/zones/$ZONE_ID/dns_records/$id" "{\"content\": \"192.0.2.$n\"}" >/dev/null
    expect "$(short moving.example.com A)" "192.0.2.$n" "a record that was changed"
  done
  api DELETE "/zones/$ZONE_ID/dns_records/$id" >/dev/null
  expect_like "$(header moving.example.com A)" '*status: NXDOMAIN*' "a record that was deleted"
}
