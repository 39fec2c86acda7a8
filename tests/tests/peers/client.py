"""All records by http.client over one connection, HEAD and 304 for some, then pipelined.

Arguments: host, port, file of keys and values. Prints how many requests it made.
"""

import http.client
import socket
import sys

host, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with open(path, "rb") as file:
    records = [line.rstrip(b"\n").split(b"\t") for line in file]
made = 0


def ask(connection, method, key, headers={}):
    global made
    made += 1
    connection.request(method, "/lookup/" + key.decode(), headers=headers)
    return connection.getresponse()


connection = http.client.HTTPConnection(host, port, timeout=30)
for number, (key, value) in enumerate(records):
    reply = ask(connection, "GET", key)
    body = reply.read()
    assert (reply.status, body) == (200, value), (key, reply.status, body)
    if number % 10 == 0:
        etag = reply.getheader("ETag")
        reply = ask(connection, "HEAD", key)
        assert reply.read() == b"" and reply.status == 200
        assert int(reply.getheader("Content-Length")) == len(value), key
        reply = ask(connection, "GET", key, {"If-None-Match": etag})
        assert (reply.status, reply.read()) == (304, b""), (key, reply.status)
        assert reply.getheader("ETag") == etag
connection.close()

# http.client does not pipeline; its parser of replies does not mind.
BATCH = 16
with socket.create_connection((host, port), timeout=30) as stream:
    file = stream.makefile("rb")
    for start in range(0, len(records), BATCH):
        batch = records[start : start + BATCH]
        request = b"GET /lookup/%s HTTP/1.1\r\nHost: peer\r\n\r\n"
        stream.sendall(b"".join(request % key for key, _ in batch))
        for key, value in batch:
            made += 1
            status = file.readline()
            assert status == b"HTTP/1.1 200 OK\r\n", (key, status)
            headers = http.client.parse_headers(file)
            body = file.read(int(headers["Content-Length"]))
            assert body == value, (key, body)
print(made)
