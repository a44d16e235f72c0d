"""A home router's port forwarding, for tests: NAT-PMP (RFC 6886) or UPnP IGD:1, with real nftables rules behind it.

python home_router.py natpmp|upnp INNER_IP OUTER_IP       in the router's network namespace; prints "ready"
"""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

SEARCH = ("239.255.255.250", 1900)
IGD = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
WAN = "urn:schemas-upnp-org:service:WANIPConnection:1"
DESCRIPTION = f"""<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceType>{IGD}</deviceType>
<friendlyName>router</friendlyName><manufacturer>tests</manufacturer><modelName>one</modelName><UDN>uuid:router</UDN>
<deviceList><device><deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><serviceList><service>
<serviceType>{WAN}</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId><controlURL>/control</controlURL>
<eventSubURL>/event</eventSubURL><SCPDURL>/scpd.xml</SCPDURL></service></serviceList></device></deviceList></device>
</deviceList></device></root>"""


def forward(protocol: str, outer_port: int, host: str, inner_port: int) -> None:
    """What the router promised: a rule that does it."""
    rule = f"iifname outer {protocol} dport {outer_port} dnat to {host}:{inner_port}"
    subprocess.run(["nft", "add", "rule", "ip", "nat", "prerouting", *rule.split()], check=True)


def serve_nat_pmp(inner: str, outer: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as router:
        router.bind((inner, 5351))
        print("ready", flush=True)
        while True:
            asked, whom = router.recvfrom(2048)
            now = int(time.monotonic())
            if asked[0] != 0:  # PCP: not spoken here
                router.sendto(struct.pack("!BBHI", 0, 128, 1, now), whom)
            elif asked[1] == 0:
                router.sendto(struct.pack("!BBHI4s", 0, 128, 0, now, socket.inet_aton(outer)), whom)
            else:
                kind, _, inner_port, outer_port, seconds = struct.unpack("!xBHHHI", asked[:12])
                if seconds:
                    forward("udp" if kind == 1 else "tcp", outer_port, whom[0], inner_port)
                answer = (0, 128 + kind, 0, now, inner_port, outer_port, seconds)
                router.sendto(struct.pack("!BBHIHHI", *answer), whom)


def serve_upnp(inner: str, outer: str) -> None:
    class Control(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(DESCRIPTION)

        def do_POST(self) -> None:
            said = self.rfile.read(int(self.headers["Content-Length"])).decode()
            action = self.headers["SOAPAction"].strip('"').rpartition("#")[2]
            result = ""
            if action == "AddPortMapping":
                names = ("NewProtocol", "NewExternalPort", "NewInternalClient", "NewInternalPort")
                protocol, outer_port, host, inner_port = (re.search(f"<{n}[^>]*>([^<]*)<", said)[1] for n in names)
                forward(protocol.lower(), int(outer_port), host, int(inner_port))
            elif action == "GetExternalIPAddress":
                result = f"<NewExternalIPAddress>{outer}</NewExternalIPAddress>"
            self.answer(
                '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
                f'<u:{action}Response xmlns:u="{WAN}">{result}</u:{action}Response></s:Body></s:Envelope>'
            )

        def answer(self, text: str) -> None:
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    http = HTTPServer((inner, 0), Control)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    location = f"http://{inner}:{http.server_port}/description.xml"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ssdp:
        ssdp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ssdp.bind(("", SEARCH[1]))
        group = socket.inet_aton(SEARCH[0]) + socket.inet_aton(inner)
        ssdp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        print("ready", flush=True)
        while True:
            asked, whom = ssdp.recvfrom(2048)
            if asked.startswith(b"M-SEARCH"):
                head = f"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: {IGD}\r\nEXT:\r\nSERVER: tests\r\n"
                ssdp.sendto(f"{head}USN: uuid:router::{IGD}\r\nLOCATION: {location}\r\n\r\n".encode(), whom)


if __name__ == "__main__":
    {"natpmp": serve_nat_pmp, "upnp": serve_upnp}[sys.argv[1]](*sys.argv[2:])
